// Puts the static site together: content hashes into names, names into placeholders, files beside each other, brotli
// and gzip beside each, and the budget on what a first visit downloads of code. Called by web/build.
//
//   node package.mjs --root REPOSITORY --work MODULES --out WWW [--quick]

import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';

/** What wasm and JavaScript may weigh in all, compressed with brotli: 2.5 MB. */
const BUDGET = 2_500_000;
const MODULES = ['page', 'worker'];
const ASSETS = 'assets';
/** Endings worth compressing. Weights are noise, pictures are compressed already. */
const COMPRESSIBLE = /\.(html|css|js|wasm|json|jsonl|csv|svg|webmanifest|md|toml|txt)$/;
/** Changes when an adapter is published into the site, which no copy beside it would follow. */
const INDEX = 'adapters/index.json';
/** The embedded base as the page loads it. */
const BASE = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors', 'README.md'];

const options = parse(process.argv.slice(2));
const { root, work, out } = options;

class Wrong extends Error {}

function parse(args) {
  const found = { quick: false };
  while (args.length) {
    const name = args.shift();
    if (name === '--quick') found.quick = true;
    else if (['--root', '--work', '--out'].includes(name) && args.length) found[name.slice(2)] = path.resolve(args.shift());
    else throw new Error(`unknown argument ${name}`);
  }
  return found;
}

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const read = (...parts) => fs.readFileSync(path.join(...parts));

/** The site under construction: its files by name, `/`-separated. */
const files = new Map();
const add = (name, bytes) => files.set(name, Buffer.from(bytes));

/** `assets/NAME-HASH.EXT`, kept by browsers for good because its content can never change. */
function addHashed(name, bytes) {
  const { name: stem, ext } = path.parse(name);
  const hashed = `${ASSETS}/${stem}-${sha256(bytes).slice(0, 16)}${ext}`;
  add(hashed, bytes);
  return hashed;
}

function addFolder(from, to, keep = () => true) {
  for (const entry of fs.readdirSync(from, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith('.') || !keep(entry.name)) continue;
    const [source, name] = [path.join(from, entry.name), to ? `${to}/${entry.name}` : entry.name];
    if (entry.isDirectory()) addFolder(source, name);
    else if (entry.isFile()) add(name, read(source));
  }
}

/** Fills `{{name}}` in a text; one that nothing fills, or that is not there, is a mistake. */
function fill(file, text, values) {
  const used = new Set();
  const filled = text.replace(/\{\{(\w+)\}\}/g, (_, name) => {
    if (!(name in values)) throw new Wrong(`web/static/${file}: {{${name}}} is not a name that the build knows`);
    used.add(name);
    return values[name];
  });
  const unused = Object.keys(values).filter((name) => values[name] !== undefined && !used.has(name));
  if (unused.length) throw new Wrong(`web/static/${file}: expected {{${unused.join('}}, {{')}}} in it`);
  return filled;
}

/** The modules, as wasm-bindgen wrote them; returns the values of their placeholders. */
function addModules() {
  const names = {};
  for (const module of MODULES) {
    const optimized = path.join(work, module, 'optimized.wasm');
    const wasm = options.quick ? path.join(work, module, `${module}_bg.wasm`) : optimized;
    names[`${module}_wasm`] = addHashed(`${module}.wasm`, fs.readFileSync(wasm));
    names[`${module}_js`] = addHashed(`${module}.js`, read(work, module, `${module}.js`));
    // Imported by a relative path that wasm-bindgen made from a hash.
    const snippets = path.join(work, module, 'snippets');
    if (fs.existsSync(snippets)) addFolder(snippets, `${ASSETS}/snippets`);
  }
  return names;
}

function addShell() {
  const source = path.join(root, 'web/static');
  const text = (file) => read(source, file).toString();
  const { page_js, page_wasm, worker_js, worker_wasm } = addModules();
  const style_css = addHashed('style.css', text('style.css'));
  const boot_js = addHashed('boot.js', fill('boot.js', text('boot.js'), {}));
  const worker = fill('worker.js', text('worker.js'), { worker_js, worker_wasm, root: '../' });
  const worker_boot_js = addHashed('worker_boot.js', worker);
  const sw_js = 'sw.js';
  const known = { style_css, boot_js, page_js, page_wasm, worker_boot_js, sw_js };
  add('index.html', fill('index.html', text('index.html'), known));
  const own = ['index.html', 'style.css', 'boot.js', 'worker.js', 'sw.js', 'README.md'];
  addFolder(source, '', (name) => !own.includes(name));

  const precache = ['./', ...[...files.keys()].filter((name) => name !== 'index.html')];
  const all = [...files].map(([name, bytes]) => `${name} ${sha256(bytes)}`).join('\n');
  add(sw_js, fill('sw.js', text('sw.js'), { version: sha256(all).slice(0, 16), precache: JSON.stringify(precache) }));
}

/** The base, the adapters and the data files; adapters that someone published into `out` stay. */
function addContent() {
  const base = path.join(root, 'native-trainer/assets/base');
  for (const file of BASE) add(`base/${file}`, read(base, file));
  addFolder(path.join(root, 'web/site'), '', (name) => ['adapters', 'data'].includes(name));

  const published = path.join(out, INDEX);
  if (!fs.existsSync(published)) return;
  const ours = JSON.parse(files.get(INDEX));
  const theirs = JSON.parse(fs.readFileSync(published));
  if (theirs.version !== ours.version) {
    throw new Wrong(`${published} has version ${theirs.version}, expected ${ours.version}: move it away and build again`);
  }
  const shipped = new Set(ours.adapters.map((row) => row.slug));
  const ownRecord = path.join(out, RECORD);
  const earlier = fs.existsSync(ownRecord) ? JSON.parse(fs.readFileSync(ownRecord)).adapters : [];
  const kept = theirs.adapters.filter((row) => !shipped.has(row.slug) && !earlier.includes(row.slug));
  if (!kept.length) return;
  for (const { slug } of kept) {
    addFolder(path.join(out, 'adapters', slug), `adapters/${slug}`, (name) => !/\.(br|gz)$/.test(name));
  }
  const adapters = [...ours.adapters, ...kept].sort((a, b) => (a.slug < b.slug ? -1 : 1));
  add(INDEX, `${JSON.stringify({ ...ours, adapters }, null, 2)}\n`);
  console.log(`kept adapters that were published into it: ${kept.map((row) => row.slug).join(', ')}`);
}

/** What this build shipped, so that the next one can tell it from what was published since. Hidden: not served. */
const RECORD = '.built.json';

function record() {
  const site = JSON.parse(read(root, 'web/site/adapters/index.json'));
  add(RECORD, JSON.stringify({ quick: options.quick, adapters: site.adapters.map((row) => row.slug) }));
}

/** Compressed bytes of a file, made once for each content. */
function compressed(bytes, kind) {
  const folder = path.join(work, 'compressed');
  const kept = path.join(folder, `${sha256(bytes)}.${kind}`);
  if (fs.existsSync(kept)) return fs.readFileSync(kept);
  const { BROTLI_PARAM_QUALITY, BROTLI_PARAM_LGWIN, BROTLI_PARAM_SIZE_HINT } = zlib.constants;
  const params = { [BROTLI_PARAM_QUALITY]: 11, [BROTLI_PARAM_LGWIN]: 24, [BROTLI_PARAM_SIZE_HINT]: bytes.length };
  const small = kind === 'br' ? zlib.brotliCompressSync(bytes, { params }) : zlib.gzipSync(bytes, { level: 9 });
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(`${kept}.part`, small);
  fs.renameSync(`${kept}.part`, kept);
  return small;
}

function compressAll() {
  for (const [name, bytes] of [...files]) {
    if (!COMPRESSIBLE.test(name) || name.startsWith('.') || name === INDEX) continue;
    for (const kind of ['br', 'gz']) {
      const small = compressed(bytes, kind);
      if (small.length < bytes.length) add(`${name}.${kind}`, small);
    }
  }
}

/** Bytes of a module's sections by what they hold (WebAssembly core specification, "Modules"). */
function sections(wasm) {
  const sizes = { code: 0, data: 0, other: 0 };
  let at = 8;
  const leb = () => {
    let [value, shift] = [0, 0];
    for (;;) {
      const byte = wasm[at++];
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
      shift += 7;
    }
  };
  while (at < wasm.length) {
    const id = wasm[at++];
    const size = leb();
    sizes[{ 10: 'code', 11: 'data' }[id] ?? 'other'] += size;
    at += size;
  }
  return sizes;
}

const mb = (bytes) => `${(bytes / 1e6).toFixed(3)} MB`;

/** Prints what the code weighs; false where that is over the budget. */
function report() {
  const rows = [...files.keys()].filter((name) => /\.(wasm|js)$/.test(name)).map((name) => {
    const bytes = files.get(name);
    return { name, raw: bytes.length, br: files.get(`${name}.br`)?.length ?? bytes.length, gz: files.get(`${name}.gz`)?.length ?? bytes.length };
  }).sort((a, b) => b.br - a.br);
  const total = rows.reduce((sum, row) => sum + row.br, 0);
  console.log(`\n${'brotli'.padStart(10)}${'gzip'.padStart(11)}${'plain'.padStart(11)}${'share'.padStart(7)}  file`);
  for (const { name, raw, br, gz } of rows) {
    const share = `${((100 * br) / total).toFixed(1)}%`;
    console.log(`${mb(br).padStart(10)}${mb(gz).padStart(11)}${mb(raw).padStart(11)}${share.padStart(7)}  ${name}`);
  }
  for (const { name } of rows.filter((row) => row.name.endsWith('.wasm'))) {
    const { code, data, other } = sections(files.get(name));
    console.log(`${name}: ${mb(code)} of code, ${mb(data)} of data, ${mb(other)} of other sections`);
  }
  const first = rows[0];
  const says = `wasm and JavaScript: ${mb(total)} with brotli of ${mb(BUDGET)} allowed; ${first.name} dominates with ${((100 * first.br) / total).toFixed(0)}%`;
  if (total <= BUDGET) {
    console.log(says);
    return true;
  }
  console.error(`over the size budget: ${says}`);
  return false;
}

/** Writes all into a folder beside `out`, then takes its place. */
function write() {
  const fresh = `${out}.new`;
  const old = `${out}.old`;
  fs.rmSync(fresh, { recursive: true, force: true });
  fs.rmSync(old, { recursive: true, force: true });
  for (const [name, bytes] of files) {
    const file = path.join(fresh, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, bytes);
  }
  if (fs.existsSync(out)) fs.renameSync(out, old);
  fs.renameSync(fresh, out);
  fs.rmSync(old, { recursive: true, force: true });
}

try {
  addShell();
  addContent();
  record();
  let fits = true;
  if (!options.quick) {
    compressAll();
    fits = report();
  }
  write();
  const bytes = [...files.values()].reduce((sum, file) => sum + file.length, 0);
  console.log(`${files.size} files, ${mb(bytes)} in ${out}`);
  if (!fits) process.exit(1);
} catch (error) {
  if (!(error instanceof Wrong) && error.code !== 'ENOENT') throw error;
  console.error(`web/build: ${error.message}`);
  process.exit(1);
}
