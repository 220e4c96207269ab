// A static server as simple as any host's, which can misbehave on request: cut a body, change a byte, ignore ranges.
//
//   const site = await serve({ '/': folder });  site.url;  site.requests;  site.fault = (request) => ({ cutAt: 1000 });
import { createServer } from 'node:http';
import { createReadStream } from 'node:fs';
import { stat, readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const types = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.wasm': 'application/wasm', '.css': 'text/css',
  '.json': 'application/json', '.svg': 'image/svg+xml', '.png': 'image/png', '.jsonl': 'application/jsonl',
  '.csv': 'text/csv', '.webmanifest': 'application/manifest+json', '.md': 'text/markdown',
};

/**
 * Serves `mounts`, `{prefix: folder}`, on loopback; the longest prefix wins. `site.fault(request)` may return:
 * `{cutAt}` destroy the connection after so many bytes of the body; `{flipAt}` change the byte of the file there;
 * `{status}` answer with it; `{noRanges: true}` ignore Range headers; `{delay}` milliseconds before the answer;
 * `{rate}` bytes a second; `{body}` another content in place of the file's.
 * `port` may be given, so that a server can go away and come back under its origin.
 */
export async function serve(mounts, port = 0) {
  const site = { requests: [], fault: () => null };
  const server = createServer((request, response) => {
    answer(site, mounts, request, response).catch(() => response.destroy());
  });
  await new Promise((ready, failed) => server.once('error', failed).listen(port, '127.0.0.1', ready));
  site.port = server.address().port;
  site.url = `http://127.0.0.1:${site.port}/`;
  site.of = (path) => site.requests.filter((request) => request.path === path);
  site.close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
  return site;
}

async function answer(site, mounts, request, response) {
  const path = decodeURIComponent(new URL(request.url, site.url).pathname);
  const seen = { path, range: request.headers.range ?? null, method: request.method };
  site.requests.push(seen);
  const fault = site.fault(seen) ?? {};
  if (fault.delay) await new Promise((on) => setTimeout(on, fault.delay));
  if (fault.status) { response.statusCode = fault.status; return response.end('refused by the test\n'); }
  const file = await find(mounts, path);
  if (!file && fault.body === undefined) { response.statusCode = 404; return response.end('not found\n'); }
  const replaced = fault.body === undefined ? null : Buffer.from(fault.body);
  const size = replaced ? replaced.length : (await stat(file)).size;
  headers(response, file ?? path, size);
  const range = fault.noRanges ? null : /^bytes=(\d+)-(\d*)$/.exec(seen.range ?? '');
  let [first, last] = [0, size - 1];
  if (range) {
    first = Number(range[1]);
    last = range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (first >= size) { response.statusCode = 416; return response.end(); }
    response.statusCode = 206;
    response.setHeader('content-range', `bytes ${first}-${last}/${size}`);
  }
  response.setHeader('content-length', last - first + 1);
  if (request.method === 'HEAD' || size === 0) return response.end();
  const whole = ['cutAt', 'flipAt', 'rate'].every((key) => fault[key] === undefined);
  if (whole && !replaced) return createReadStream(file, { start: first, end: last }).pipe(response);
  const body = (replaced ?? await readFile(file)).subarray(first, last + 1);
  return misbehave(response, body, first, fault);
}

async function misbehave(response, body, first, { cutAt, flipAt, rate }) {
  if (flipAt >= first && flipAt < first + body.length) body[flipAt - first] ^= 0x55;
  if (cutAt !== undefined) {
    return response.write(body.subarray(0, cutAt), () => setTimeout(() => response.destroy(), 50));
  }
  if (!rate) return response.end(body);
  const portion = Math.max(1, Math.round(rate / 20));
  for (let at = 0; at < body.length && !response.destroyed; at += portion) {
    response.write(body.subarray(at, at + portion));
    await new Promise((on) => setTimeout(on, 50));
  }
  return response.end();
}

async function find(mounts, path) {
  const longest = Object.entries(mounts).sort((a, b) => b[0].length - a[0].length);
  const mount = longest.find(([prefix]) => path.startsWith(prefix));
  if (!mount) return null;
  const folder = normalize(mount[1]).replace(/\/$/, '');
  let file = normalize(join(folder, path.slice(mount[0].length)));
  if (file !== folder && !file.startsWith(`${folder}/`)) return null;
  const found = await stat(file).catch(() => null);
  if (found?.isDirectory()) file = join(file, 'index.html');
  return await stat(file).then((s) => s.isFile(), () => false) ? file : null;
}

function headers(response, file, size) {
  response.setHeader('content-type', types[extname(file)] ?? 'application/octet-stream');
  response.setHeader('accept-ranges', 'bytes');
  response.setHeader('etag', `"${size}"`);
  response.setHeader('cache-control', 'no-cache');
}

/** A proxy that lets nothing through and keeps the names of the hosts it was asked for. */
export async function recorder() {
  const asked = [];
  const server = createServer((request, response) => {
    asked.push(request.url);
    response.statusCode = 502;
    response.end();
  });
  server.on('connect', (request, socket) => {
    asked.push(request.url);
    socket.on('error', () => {});
    socket.end('HTTP/1.1 502 refused by the test\r\n\r\n');
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
  return { asked, url: `http://127.0.0.1:${server.address().port}`, close };
}
