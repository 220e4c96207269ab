// The worker, spoken to directly: requests and events of `web/src/protocol` as JSON, from a page of the same origin.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The engine behind the site's worker script. */
export class Engine {
  /** Starts a worker on a page without the application, and opens a device. */
  static async start(context, site, { compute = 'f32', prefer = null } = {}) {
    const page = await context.newPage();
    await page.goto(`${site.url}test/blank.html`);
    const index = await readFile(join(process.env.QLOOM_WWW, 'index.html'), 'utf8');
    const script = /name="qloom-worker" content="([^"]+)"/.exec(index)[1];
    await page.evaluate(listen, `${site.url}${script}`);
    const engine = new Engine(page, site);
    engine.device = (await engine.ask({ do: 'start', prefer, compute })).last.device;
    return engine;
  }

  constructor(page, site) {
    Object.assign(this, { page, site, next: 1 });
  }

  /** Sends a request with files; waits for its final event, which `failed` makes an error unless it is expected. */
  async ask(body, { files = [], fails = false } = {}) {
    const id = this.next++;
    const packed = files.map((bytes) => Buffer.from(bytes).toString('base64'));
    const { events, attachments } = await this.page.evaluate(request, { id, body, files: packed });
    const last = events.at(-1);
    if (last.event === 'failed' && !fails) throw new Error(`${body.do}: ${last.failure.kind}: ${last.failure.message}`);
    return { events, last, files: attachments.map((text) => Buffer.from(text, 'base64')) };
  }

  /** Loads the base at `path` of the site. */
  async base(path = 'base/', options = {}) {
    const source = { from: 'url', url: `${this.site.url}${path}`, name: path };
    return (await this.ask({ do: 'load_base', source, options })).last.base;
  }

  /** Adds the adapter at `path` of the site. */
  async adapter(name, path) {
    const source = { from: 'url', url: `${this.site.url}${path}` };
    return (await this.ask({ do: 'add_adapter', name, source })).last.adapter;
  }

  /** Greedy texts, one per column. */
  async greedy(prompt, tokens, columns) {
    const sampling = { temperature: 0, max_new_tokens: tokens };
    const body = { do: 'generate', prompt, columns: columns.map((adapters) => ({ adapters })), sampling };
    const { events } = await this.ask(body);
    const texts = columns.map((_, at) => events.filter((e) => e.event === 'text' && e.column === at).map((e) => e.text).join(''));
    const done = columns.map((_, at) => events.find((e) => e.event === 'column_done' && e.column === at));
    return { texts, done };
  }

  /** Losses by token, one list per column. */
  async losses(text, columns, before = '') {
    const prompt = { as: 'text', text: before };
    const body = { do: 'token_losses', prompt, text, columns: columns.map((adapters) => ({ adapters })) };
    return (await this.ask(body)).last.columns;
  }

  close() { return this.page.close(); }
}

/** In the page: the worker, and what it said, by request. */
function listen(url) {
  const final = new Set(['ready', 'base_loaded', 'adapter_added', 'adapter_removed', 'merged', 'exported', 'generated',
    'classified', 'token_losses', 'evaluated', 'stopped', 'cleared', 'failed']);
  const base64 = (buffer) => {
    let text = '';
    const bytes = new Uint8Array(buffer);
    for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
    return btoa(text);
  };
  const open = new Map();
  const worker = new Worker(url, { type: 'module' });
  const broken = (message) => {
    const body = { event: 'failed', failure: { kind: 'internal', message } };
    for (const request of open.values()) request.done({ events: [...request.events, body], attachments: [] });
    open.clear();
  };
  worker.onerror = (event) => broken(event.message || 'its module cannot be loaded');
  worker.onmessage = ({ data: [json, ...buffers] }) => {
    const { id, body } = JSON.parse(json);
    if (id === 0) {
      if (body.event === 'failed') broken(body.failure.message);
      return;
    }
    const request = open.get(id);
    if (!request) return;
    request.events.push(body);
    request.attachments.push(...buffers.map(base64));
    if (!final.has(body.event)) return;
    open.delete(id);
    request.done({ events: request.events, attachments: request.attachments });
  };
  globalThis.engine = { worker, open };
}

/** In the page: one request. */
function request({ id, body, files }) {
  const buffers = files.map((text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  return new Promise((done) => {
    globalThis.engine.open.set(id, { done, events: [], attachments: [] });
    globalThis.engine.worker.postMessage([JSON.stringify({ id, body }), ...buffers], buffers);
  });
}
