// The slider of the landing page; guide/site_files.py puts this after softmax() of the explorer.
const logits = [2, 1, 3, 5, 4];
const slider = document.getElementById("demo-temperature");
const bars = document.querySelectorAll("#demo-bars li");

// 0 and Infinity at the ends, 0.1 to 10 between them.
function temperature() {
  const x = Number(slider.value);
  if (x <= -1.05) return 0;
  return x >= 1.05 ? Infinity : Number((10 ** x).toPrecision(2));
}

function show() {
  const T = temperature();
  const p = softmax(logits, T);
  bars.forEach((bar, k) => {
    bar.style.setProperty("--p", p[k]);
    bar.querySelector("b").textContent = `${(100 * p[k]).toFixed(1)} %`;
  });
  const text = T === Infinity ? "∞" : String(T);
  slider.setAttribute("aria-valuetext", `T = ${text}`);
  document.getElementById("demo-value").textContent = text;
  document.getElementById("demo-code").textContent =
    `logitlab.softmax([${logits.join(", ")}], temperature=${T === Infinity ? "math.inf" : T})`;
}

slider.addEventListener("input", show);
show();
