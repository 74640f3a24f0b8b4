// Settings that show one effect each, and what there is to see.

export const PRESETS = {
  sharpen: {
    settings: { T: "0.3" },
    story: "Sharpen: a temperature below 1 enlarges the differences between the logits. At T = 0.3 the largest logit takes " +
      "almost all of the probability; the order of the classes stays the same.",
  },
  flatten: {
    settings: { T: "5" },
    story: "Flatten: a temperature above 1 reduces the differences between the logits. At T = 5 the probabilities come closer " +
      "to each other; at ∞ all are equal.",
  },
  overflow: {
    settings: { set: "huge", open: "precision" },
    story: "Overflow: exp(5000) is larger than any double-precision number, so exp(z) divided by its sum is ∞/∞ = NaN. logitlab " +
      "subtracts the largest logit first, which changes no probability, and every result is exact to the last digits.",
  },
  truncate: {
    settings: { T: "1.5", p: "0.8", n: "100" },
    story: "Truncate: top-p 0.8 keeps the most probable classes until their total reaches 80 %. The other classes get probability 0, " +
      "and none of the 100 samples.",
  },
};
