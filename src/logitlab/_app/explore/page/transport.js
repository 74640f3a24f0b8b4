// Where Python runs: behind the server of the page, or in a web worker. Both give a function from
// the settings, as text, to a promise of the same values.

async function askServer(settings) {
  try {
    const response = await fetch("view", { method: "POST", body: settings });
    return await response.json();
  } catch (error) {
    return { error: `The server does not answer: ${error.message}. Is logitlab explore still running?` };
  }
}

function startWorker(wheel) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const waiting = [];
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.failure !== undefined) reject(new Error(data.failure));
      else if (data.ready) resolve(ask);
      else waiting.shift()(JSON.parse(data.values));
    };
    worker.onerror = (event) => reject(new Error(event.message ?? "the worker did not start"));
    worker.postMessage({ wheel });
    const ask = (settings) => new Promise((answer) => {
      waiting.push(answer);
      worker.postMessage({ settings });
    });
  });
}

export function connect({ python, wheel }) {
  if (python === "server") return Promise.resolve(askServer);
  if (python === "worker") return startWorker(wheel);
  return Promise.reject(new Error("this page was made without Python"));
}
