// Prints a digest of the kernels' results over many shapes and types: the same on every processor.
#include <cstdio>
#include <cstring>
#include <vector>

#include "sample_args.h"

#if defined(__aarch64__)
namespace kernels = logitlab::neon;
#else
namespace kernels = logitlab::v3;
#endif

namespace {

using namespace logitlab;

uint64_t state = 1;
double uniform() {  // a plain congruential generator: reproducible, nothing more
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 11) * 0x1p-53;
}

uint64_t digest = 14695981039346656037u;
void add(const char* bytes, size_t n) {
  for (size_t i = 0; i < n; ++i) digest = (digest ^ uint8_t(bytes[i])) * 1099511628211u;
}

// Logits in (-spread, spread) as the bits of each kind.
std::vector<char> logits(Kind kind, size_t n, double spread) {
  const size_t item = kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : 2;
  std::vector<char> bytes(n * item);
  for (size_t i = 0; i < n; ++i) {
    const double x = (2 * uniform() - 1) * spread;
    const float f = float(x);
    uint32_t b;
    std::memcpy(&b, &f, 4);
    const uint16_t brief = uint16_t(b >> 16);
    const uint16_t half = uint16_t((b >> 16 & 0x8000) | (b >> 13 & 0x53ff));  // some number
    const void* from = kind == kFloat64   ? static_cast<const void*>(&x)
                       : kind == kFloat32 ? static_cast<const void*>(&f)
                       : kind == kFloat16 ? static_cast<const void*>(&half)
                                          : static_cast<const void*>(&brief);
    std::memcpy(&bytes[i * item], from, item);
  }
  return bytes;
}

enum class Aim { labels, smoothed, distributions };

void run(Op op, Kind kind, int64_t rows, int64_t k, double spread, double temperature, bool columns,
         Aim aim = Aim::labels) {
  const int64_t item = kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : 2;
  const std::vector<char> z = logits(kind, size_t(rows * k), spread);
  std::vector<char> out(size_t(op == Op::logsumexp ? rows : rows * k) * item);
  Batch b;
  b.op = op, b.kind = kind, b.z = z.data(), b.out = out.data();
  b.temperature = temperature, b.k = k, b.rows = rows, b.dims = 1;
  b.z_step = b.out_step = columns ? rows * item : item;
  b.shape[0] = rows;
  b.z_stride[0] = columns ? item : k * item;
  b.out_stride[0] = op == Op::logsumexp || columns ? item : k * item;
  b.where_stride[0] = b.t_stride[0] = 0;
  std::vector<int64_t> label(static_cast<size_t>(rows));
  std::vector<double> scale(label.size()), loss(label.size());
  for (size_t i = 0; i < label.size(); ++i) {
    label[i] = int64_t(uniform() * double(k + 1)) - 1;
    scale[i] = uniform() - 0.5;
  }
  std::vector<float> targets(size_t(rows * k));
  for (float& y : targets) y = float(uniform());
  const std::vector<double> wide(targets.begin(), targets.end());
  if (op == Op::loss || op == Op::loss_and_gradient) {
    b.scale = scale.data(), b.loss = loss.data();
    if (aim == Aim::distributions)
      b.targets = kind == kFloat64 ? static_cast<const void*>(wide.data()) : targets.data();
    else
      b.label = label.data();
    if (aim != Aim::labels) b.smoothing = 0.1;
  }
  kernels::run(b, 0, rows);
  add(out.data(), out.size());
  add(reinterpret_cast<const char*>(loss.data()), loss.size() * sizeof(double));
}

// Draws, with and without replacement, and what a truncation leaves.
void draw(Kind kind, int64_t rows, int64_t k, double temperature, const Cut& cut) {
  const int64_t item = kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : 2;
  const std::vector<char> z = logits(kind, size_t(rows * k), 5);
  std::vector<uint64_t> keys(static_cast<size_t>(rows));
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i << 40 | 7;
  Sampling s;
  s.batch.kind = kind, s.batch.z = z.data(), s.batch.temperature = temperature;
  s.batch.k = k, s.batch.rows = rows, s.batch.dims = 1, s.batch.z_step = item;
  s.batch.shape[0] = rows, s.batch.z_stride[0] = k * item;
  s.batch.where_stride[0] = s.batch.t_stride[0] = 0;
  s.cut = cut, s.key[0] = 0x243f6a88, s.key[1] = 0x85a308d3, s.row_keys = keys.data();
  for (const bool replacement : {true, false}) {
    s.n = replacement ? 33 : 5, s.replacement = replacement;
    std::vector<int64_t> found(size_t(rows * s.n));
    s.found = found.data();
    kernels::sample(s, 0, rows);
    add(reinterpret_cast<const char*>(found.data()), found.size() * sizeof(int64_t));
  }
  std::vector<uint8_t> kept(size_t(rows * k));
  s.kept = kept.data();
  kernels::sample(s, 0, rows);
  add(reinterpret_cast<const char*>(kept.data()), kept.size());
}

std::vector<Cut> cuts() {
  Cut top_k, top_p, all;
  top_k.count = 1, top_k.stages[0] = Stage::top_k, top_k.top_k = 20;
  top_p.count = 2, top_p.stages[0] = Stage::temperature, top_p.stages[1] = Stage::top_p;
  top_p.top_p = 0.9;
  all = top_p;
  all.count = 4, all.stages[2] = Stage::min_p, all.stages[3] = Stage::top_k;
  all.min_p = 0.01, all.top_k = 100;
  return {Cut{}, top_k, top_p, all};
}

}  // namespace

int main() {
  for (const Kind kind : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    for (const Op op :
         {Op::softmax, Op::log_softmax, Op::logsumexp, Op::loss, Op::loss_and_gradient})
      for (const int64_t k : {1, 2, 3, 7, 10, 64, 128, 129, 200, 1000, 5000})
        for (const bool columns : {false, true})
          for (const double t : {1.0, 0.3, 50.0, 0.0})
            for (const Aim aim : {Aim::labels, Aim::smoothed, Aim::distributions})
              if (aim == Aim::labels || op == Op::loss || op == Op::loss_and_gradient)
                run(op, kind, 35, k, 40, t, columns, aim);
    for (const int64_t k : {1, 3, 10, 129, 1000, 9000})
      for (const double t : {1.0, 0.3, 50.0, 0.0, -2.0})
        for (const Cut& cut : cuts()) draw(kind, 7, k, t, cut);
    std::printf("%d %016llx\n", int(kind), static_cast<unsigned long long>(digest));
  }
}
