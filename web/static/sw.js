// The service worker: after the first visit the page opens without network.
//
// The shell and the hashed files are stored when this version is installed, and older versions' stores are removed. The
// site's own base, adapters and data are stored as they are used. Bases from elsewhere are none of its business: the page's worker
// keeps those in storage of its own.

const VERSION = '{{version}}';
const FILES = {{precache}};
const PREFIX = `qloom-${new URL('./', self.location).pathname}-`;
const SHELL = `${PREFIX}shell-${VERSION}`;
const CONTENT = `${PREFIX}content`;
const ROOT = new URL('./', self.location).href;
const NAMED = new Set(FILES.map((file) => new URL(file, ROOT).href));

self.addEventListener('install', (event) => {
  // Past the browser's own cache: `./` and the manifest have no hash in their names.
  const fresh = FILES.map((file) => new Request(new URL(file, ROOT), { cache: 'reload' }));
  event.waitUntil(caches.open(SHELL).then((cache) => cache.addAll(fresh)).then(() => self.skipWaiting()));
});

self.addEventListener('activate', (event) => {
  const old = (name) => name.startsWith(`${PREFIX}shell-`) && name !== SHELL;
  const remove = caches.keys().then((names) => Promise.all(names.filter(old).map((name) => caches.delete(name))));
  event.waitUntil(remove.then(() => self.clients.claim()));
});

/** The site's own content, which changes under fixed names: the network first, the store without one. */
async function content(request) {
  const cache = await caches.open(CONTENT);
  try {
    const response = await fetch(request);
    if (response.status === 200) await cache.put(request.url, response.clone()).catch(() => undefined);
    return response;
  } catch (error) {
    const stored = await cache.match(request.url);
    if (stored) return ranged(request, stored);
    throw error;
  }
}

/** A part of a stored file, where a part was asked for. */
async function ranged(request, stored) {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get('range') ?? '');
  if (!range) return stored;
  const bytes = await stored.arrayBuffer();
  const from = Number(range[1]);
  const to = range[2] ? Math.min(Number(range[2]), bytes.byteLength - 1) : bytes.byteLength - 1;
  if (from > to) return new Response(null, { status: 416, headers: { 'content-range': `bytes */${bytes.byteLength}` } });
  const headers = { 'content-range': `bytes ${from}-${to}/${bytes.byteLength}`, 'content-type': 'application/octet-stream' };
  return new Response(bytes.slice(from, to + 1), { status: 206, headers });
}

/** The page: the network first, so that a new version shows at once; the stored shell without one. */
async function shell(request) {
  try {
    return await fetch(request);
  } catch (error) {
    const stored = await caches.match(ROOT, { cacheName: SHELL });
    if (stored) return stored;
    throw error;
  }
}

/** A hashed file: the store first, for its content can never change. */
async function hashed(request) {
  return (await caches.match(request.url, { cacheName: SHELL })) ?? fetch(request);
}

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  url.search = '';
  url.hash = '';
  if (request.method !== 'GET' || !url.href.startsWith(ROOT)) return;
  const below = url.href.slice(ROOT.length);
  if (below === '' || below === 'index.html') event.respondWith(shell(request));
  else if (NAMED.has(url.href)) event.respondWith(hashed(request));
  else if (/^(base|adapters|data)\//.test(below)) event.respondWith(content(request));
});
