// Starts the page: loads its WebAssembly module, says in words where that is impossible, and registers the service worker.
// The names of the files stand in index.html, so that this script is the same for every build.

const meta = (name) => document.querySelector(`meta[name="${name}"]`);
const url = (name) => new URL(name, document.baseURI).href;

function say(text) {
  const place = document.getElementById('shell-state');
  if (!place) return;
  place.textContent = text;
  place.className = 'fail';
}

async function start() {
  if (typeof WebAssembly !== 'object') {
    say('This browser has no WebAssembly, which the page needs. Any browser of the last years has it.');
    return;
  }
  const page = meta('qloom-page');
  try {
    const module = await import(url(page.content));
    await module.default({ module_or_path: url(page.dataset.wasm) });
  } catch (error) {
    console.error(error);
    say(`The page could not start: ${error?.message ?? error}. Reload it; if that does not help, this browser may be too old.`);
  }
}

async function offline() {
  const worker = meta('qloom-offline');
  if (!worker || !('serviceWorker' in navigator)) return;
  try {
    await navigator.serviceWorker.register(url(worker.content));
  } catch (error) {
    // Private windows and plain http refuse it; everything but the visit without network works all the same.
    console.info('no service worker:', error?.message ?? error);
  }
}

start();
if (document.readyState === 'complete') offline();
else addEventListener('load', offline, { once: true });
