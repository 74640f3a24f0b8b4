// The softmax of one row in double precision, for the time before Python is loaded.

// exp(z/T) / sum exp(z/T) of an array of numbers, with the limits of logitlab.softmax: at T = 0 the
// largest entries have equal probabilities, at T = Infinity all entries, and T < 0 favours small
// logits. -Infinity is excluded at every T. A row with NaN, or without an entry left, is NaN.
export function softmax(z, temperature = 1) {
  const sign = temperature < 0 ? -1 : 1, scale = Math.abs(temperature);
  const w = Array.from(z, (x) => (x === -Infinity ? x : sign * x));
  const max = w.reduce((a, b) => Math.max(a, b), -Infinity);
  if (Number.isNaN(max) || Number.isNaN(scale) || max === -Infinity) return w.map(() => NaN);
  const onlyMax = scale === 0 || max === Infinity;
  const weights = w.map((x) => {
    if (x === max) return 1;
    if (onlyMax || x === -Infinity) return 0;
    const difference = x - max;
    return Math.exp(difference === -Infinity ? (x / 2 - max / 2) / (scale / 2) : difference / scale);
  });
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((e) => e / total);
}
