// Prints a digest of the kernels' results over many shapes and types: the same on every processor.
#include <cstdio>
#include <cstring>
#include <vector>

#include "sample_args.h"

#if defined(__aarch64__)
namespace kernels = logitlab::neon;
#elif defined(LOGITLAB_SCALAR)
namespace kernels = logitlab::v2;
#else
namespace kernels = logitlab::v3;
#endif

namespace {

using namespace logitlab;

uint64_t state = 1;
double uniform() {  // a linear congruential generator
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 11) * 0x1p-53;
}

uint64_t digest = 14695981039346656037u;  // FNV-1a
void update_digest(const char* bytes, size_t n) {
  for (size_t i = 0; i < n; ++i) digest = (digest ^ uint8_t(bytes[i])) * 1099511628211u;
}

int64_t item_size(Kind kind) { return kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : 2; }

// Logits in (-spread, spread) as the bits of each kind; float16 has arbitrary finite numbers.
std::vector<char> random_logits(Kind kind, size_t n, double spread) {
  const size_t item = size_t(item_size(kind));
  std::vector<char> bytes(n * item);
  for (size_t i = 0; i < n; ++i) {
    const double x = (2 * uniform() - 1) * spread;
    const float single = float(x);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    const uint16_t bfloat = uint16_t(bits >> 16);
    const uint16_t half = uint16_t((bits >> 16 & 0x8000) | (bits >> 13 & 0x53ff));
    const void* from = kind == kFloat64   ? static_cast<const void*>(&x)
                       : kind == kFloat32 ? static_cast<const void*>(&single)
                       : kind == kFloat16 ? static_cast<const void*>(&half)
                                          : static_cast<const void*>(&bfloat);
    std::memcpy(&bytes[i * item], from, item);
  }
  return bytes;
}

enum class TargetKind { labels, smoothed_labels, smoothed_distributions };

void run(Op op, Kind kind, int64_t rows, int64_t k, double spread, double temperature, bool columns,
         TargetKind target_kind = TargetKind::labels) {
  const int64_t item = item_size(kind);
  const std::vector<char> z = random_logits(kind, size_t(rows * k), spread);
  std::vector<char> out(size_t(op == Op::logsumexp ? rows : rows * k) * item);
  Batch batch;
  batch.op = op, batch.kind = kind, batch.z = z.data(), batch.out = out.data();
  batch.temperature = temperature, batch.k = k, batch.rows = rows, batch.dims = 1;
  batch.z_step = batch.out_step = columns ? rows * item : item;
  batch.shape[0] = rows;
  batch.z_stride[0] = columns ? item : k * item;
  batch.out_stride[0] = op == Op::logsumexp || columns ? item : k * item;
  batch.where_stride[0] = batch.temperature_stride[0] = 0;
  std::vector<int64_t> label(static_cast<size_t>(rows));
  std::vector<double> scale(label.size()), loss(label.size());
  for (size_t i = 0; i < label.size(); ++i) {
    label[i] = int64_t(uniform() * double(k + 1)) - 1;
    scale[i] = uniform() - 0.5;
  }
  std::vector<float> targets(size_t(rows * k));
  for (float& y : targets) y = float(uniform());
  const std::vector<double> double_targets(targets.begin(), targets.end());
  if (op == Op::loss || op == Op::loss_and_gradient) {
    batch.gradient_scale = scale.data(), batch.loss = loss.data();
    if (target_kind == TargetKind::smoothed_distributions)
      batch.targets =
          kind == kFloat64 ? static_cast<const void*>(double_targets.data()) : targets.data();
    else
      batch.label = label.data();
    if (target_kind != TargetKind::labels) batch.smoothing = 0.1;
  }
  kernels::run(batch, 0, rows);
  update_digest(out.data(), out.size());
  update_digest(reinterpret_cast<const char*>(loss.data()), loss.size() * sizeof(double));
}

// Samples with and without replacement, and the mask of a truncation.
void sample(Kind kind, int64_t rows, int64_t k, double temperature, const Truncation& truncation) {
  const int64_t item = item_size(kind);
  const std::vector<char> z = random_logits(kind, size_t(rows * k), 5);
  std::vector<uint64_t> keys(static_cast<size_t>(rows));
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = i << 40 | 7;
  SampleArgs args;
  args.batch.kind = kind, args.batch.z = z.data(), args.batch.temperature = temperature;
  args.batch.k = k, args.batch.rows = rows, args.batch.dims = 1, args.batch.z_step = item;
  args.batch.shape[0] = rows, args.batch.z_stride[0] = k * item;
  args.batch.where_stride[0] = args.batch.temperature_stride[0] = 0;
  args.truncation = truncation, args.row_keys = keys.data();
  args.key[0] = 0x243f6a88, args.key[1] = 0x85a308d3;
  for (const bool replacement : {true, false}) {
    args.n = replacement ? 33 : 5, args.replacement = replacement;
    std::vector<int64_t> found(size_t(rows * args.n));
    args.found = found.data();
    kernels::sample(args, 0, rows);
    update_digest(reinterpret_cast<const char*>(found.data()), found.size() * sizeof(int64_t));
  }
  std::vector<uint8_t> kept(size_t(rows * k));
  args.kept = kept.data();
  kernels::sample(args, 0, rows);
  update_digest(reinterpret_cast<const char*>(kept.data()), kept.size());
}

std::vector<Truncation> truncations() {
  const StageArgs temperature{Stage::temperature, {}, {}}, top_k{Stage::top_k, {20}, {}},
      top_p{Stage::top_p, {0.9}, {}}, min_p{Stage::min_p, {0.01}, {}};
  std::vector<Truncation> found{{}, {1, {top_k}}, {2, {temperature, top_p}}};
  found.push_back({4, {temperature, top_p, min_p, {Stage::top_k, {100}, {}}}});
  // The other stages, at a dynamic temperature.
  found.push_back({4,
                   {{Stage::temperature, {0.5}, {1.5}},
                    {Stage::top_n_sigma, {2}, {}},
                    {Stage::typical_p, {0.95}, {}},
                    {Stage::xtc, {0.2}, {}}}});
  found.push_back(
      {3, {{Stage::eta, {0.001}, {}}, {Stage::epsilon, {0.0005}, {}}, {Stage::top_a, {0.01}, {}}}});
  return found;
}

}  // namespace

int main() {
  for (const Kind kind : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    for (const Op op :
         {Op::softmax, Op::log_softmax, Op::logsumexp, Op::loss, Op::loss_and_gradient})
      for (const int64_t k : {1, 2, 3, 7, 10, 64, 128, 129, 200, 1000, 5000})
        for (const bool columns : {false, true})
          for (const double t : {1.0, 0.3, 50.0, 0.0})
            for (const TargetKind target_kind : {TargetKind::labels, TargetKind::smoothed_labels,
                                                 TargetKind::smoothed_distributions})
              if (target_kind == TargetKind::labels || op == Op::loss ||
                  op == Op::loss_and_gradient)
                run(op, kind, 35, k, 40, t, columns, target_kind);
    for (const int64_t k : {1, 3, 10, 129, 1000, 9000})
      for (const double t : {1.0, 0.3, 50.0, 0.0, -2.0})
        for (const Truncation& truncation : truncations()) sample(kind, 7, k, t, truncation);
    std::printf("%d %016llx\n", int(kind), static_cast<unsigned long long>(digest));
  }
}
