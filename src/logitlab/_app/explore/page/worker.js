// Python in a web worker: Pyodide, NumPy and the modules of logitlab, all from the folder of the page.

const read = async (name) => {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  return response;
};

async function start(wheel) {
  const at = (name) => new URL(name, import.meta.url).href;
  const { loadPyodide } = await import(at("pyodide/pyodide.mjs"));
  const [pyodide, archive, digits] = await Promise.all([
    loadPyodide({ indexURL: at("pyodide/") }),
    read(at("logitlab.zip")).then((response) => response.arrayBuffer()),
    read(at("digits.json")).then((response) => response.text()),
  ]);
  await pyodide.loadPackage(at(`pyodide/${wheel}`), { messageCallback() {}, errorCallback() {} });
  pyodide.unpackArchive(archive, "zip", { extractDir: "/logitlab" });
  pyodide.runPython("import sys; sys.path.insert(0, '/logitlab'); import numpy");
  return pyodide.pyimport("logitlab._app.explore.browser").make_answer(digits);
}

let answer = null;
onmessage = async ({ data }) => {
  try {
    if (data.settings === undefined) {
      answer = await start(data.wheel);
      postMessage({ ready: true });
    } else postMessage({ values: answer(data.settings) });
  } catch (error) {
    const reason = String(error.message ?? error).trim().split("\n").at(-1);
    if (answer === null) postMessage({ failure: reason });
    else postMessage({ values: JSON.stringify({ error: reason }) });
  }
};
