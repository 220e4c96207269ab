// Figures, measured and written to $OUT/figures.json: nothing here fails for being slow on whatever machine this is.
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { launch, open } from './lib/browser.mjs';
import { Engine } from './lib/engine.mjs';
import { trainer } from './lib/native.mjs';
import { site, Ui, until } from './lib/visit.mjs';

const icd = '/usr/lib/chromium/vk_swiftshader_icd.json';
const tokens = 48;
const prompt = 'Late in the afternoon, David and Nina';
const figures = {};
let [served, browser] = [];

before(async () => {
  served = await site();
  browser = await launch();
});
after(async () => {
  await writeFile(join(process.env.OUT, 'figures.json'), `${JSON.stringify(figures, null, 2)}\n`);
  await browser?.close();
  await served?.close();
});

function note(t, name, value, unit) {
  figures[name] = `${value} ${unit}`;
  t.diagnostic(`${name}: ${value} ${unit}`);
}

/** Times of a first visit, in milliseconds after the navigation began. */
async function times(context) {
  const { page } = await open(context, served.url, (fresh) => fresh.addInitScript(() => {
    globalThis.reached = {};
    const reach = (name) => { globalThis.reached[name] ??= performance.now(); };
    new MutationObserver(() => {
      const send = document.querySelector('#compare .prompt button[type="submit"]');
      if (send) reach('interactive');
      if (send && !send.disabled) reach('loaded');
      const answers = [...document.querySelectorAll('.column .answer')];
      if (answers.length > 1 && answers.every((answer) => answer.textContent)) reach('compared');
    }).observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  }));
  await until('the first compared token', async () => page.evaluate(() => globalThis.reached.compared), 120_000);
  const found = await page.evaluate(() => ({
    paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime, ...globalThis.reached,
  }));
  await new Ui(page).answers();
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
  await page.close();
  return found;
}

test('a visit: first paint, controls, base loaded, first compared token', async (t) => {
  for (const cache of ['cold', 'warm']) {
    const found = await times(browser.context);
    note(t, `first contentful paint, ${cache} cache`, Math.round(found.paint), 'ms');
    note(t, `the page takes input, ${cache} cache`, Math.round(found.interactive), 'ms');
    note(t, `the base can be asked, ${cache} cache`, Math.round(found.loaded), 'ms');
    note(t, `first token in every column, ${cache} cache`, Math.round(found.compared), 'ms');
  }
});

test('what a first visit downloads of code', async (t) => {
  const assets = join(process.env.QLOOM_WWW, 'assets');
  for (const name of (await readdir(assets)).filter((file) => file.endsWith('.wasm'))) {
    const plain = (await stat(join(assets, name))).size;
    const small = await stat(join(assets, `${name}.br`)).then((found) => found.size, () => null);
    const stem = name.replace(/-[0-9a-f]+\.wasm$/, '.wasm');
    note(t, stem, (plain / 1e6).toFixed(2), `MB${small ? `, ${(small / 1e6).toFixed(2)} MB with brotli` : ', not compressed (--quick)'}`);
  }
});

/** Seconds per token after the first, natively on wgpu: from two lengths, so that loading and the prompt cancel out. */
async function native(adapter) {
  const seconds = async (length) => {
    const from = performance.now();
    const args = ['generate', '--device', 'wgpu', '--compute', 'f32', '--raw', '--ignore-eos', '--prompt', prompt];
    await trainer([...args, ...adapter, '--max-new-tokens', String(length)], { env: { ...process.env, VK_ICD_FILENAMES: icd } });
    return (performance.now() - from) / 1e3;
  };
  const short = await seconds(8);
  return (await seconds(8 + tokens) - short) / tokens;
}

test('decoding in the page, without and with an adapter, beside wgpu natively on the same SwiftShader', async (t) => {
  const engine = await Engine.start(browser.context, served);
  await engine.base();
  await engine.adapter('instructions', 'adapters/instructions');
  const asked = { as: 'text', text: prompt };
  const rate = async (adapters) => {
    const { done: [{ tokens: written, tokens_per_s: found }] } = await engine.greedy(asked, tokens, [adapters]);
    return { written, found };
  };
  await rate([]);
  const [bare, adapted] = [await rate([]), await rate(['instructions'])];
  note(t, 'decoding in the page, base', bare.found.toFixed(1), `tokens/s over ${bare.written} tokens`);
  note(t, 'decoding in the page, with an adapter', adapted.found.toFixed(1), `tokens/s over ${adapted.written} tokens`);
  await engine.close();
  if (!await readFile(icd).then(() => true, () => false)) return t.diagnostic(`no ${icd}: nothing measured natively`);
  const base = await native([]);
  const both = await native(['--adapter', join(process.env.QLOOM_WWW, 'adapters/instructions')]);
  note(t, 'decoding natively on wgpu, base', (1 / base).toFixed(1), 'tokens/s');
  note(t, 'decoding natively on wgpu, with an adapter', (1 / (both - base)).toFixed(1), 'tokens/s');
});
