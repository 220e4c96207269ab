// Starts the worker's module. Requests that come before it is ready wait here and are then handed over as the events they
// were; what breaks outside of a request is told to the page as the failure that it is.

const waiting = [];
const wait = (event) => waiting.push(event.data);
addEventListener('message', wait);

function fail(what, error) {
  const message = `${what}: ${error?.message ?? error}`;
  const body = { event: 'failed', failure: { kind: 'internal', message } };
  postMessage([JSON.stringify({ id: 0, body })]);
}

addEventListener('unhandledrejection', (event) => fail('The worker broke', event.reason));

const root = new URL('{{root}}', import.meta.url);

try {
  const module = await import(new URL('{{worker_js}}', root).href);
  const wasm = await module.default({ module_or_path: new URL('{{worker_wasm}}', root) });
  wasm.__wasm_call_ctors(); // once; see build.rs
  removeEventListener('message', wait);
  for (const data of waiting.splice(0)) dispatchEvent(new MessageEvent('message', { data }));
} catch (error) {
  fail('The worker could not start', error);
}
