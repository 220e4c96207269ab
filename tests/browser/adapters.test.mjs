// Adapters: the gallery, a zip through the picker and by drag and drop, what is refused.
import { strict as assert } from 'node:assert';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { join } from 'node:path';

import { folder } from './lib/native.mjs';
import * as safetensors from './lib/safetensors.mjs';
import { healthy, link, until, visit } from './lib/visit.mjs';
import { unzip, zip } from './lib/zip.mjs';

const gallery = join(process.env.QLOOM_WWW, 'adapters');
const of = (name) => readFile(join(gallery, 'sentiment', name));
let here;
let peft; // the files of a PEFT adapter, `[name, bytes]`

before(async () => {
  const names = ['adapter_config.json', 'adapter_model.safetensors', 'qloom.json'];
  peft = await Promise.all(names.map(async (name) => [name, await of(name)]));
  here = await visit({ fragment: link() });
  await here.ui.ready();
});
after(async () => { await here?.close(); });

const file = (name, buffer) => ({ name, mimeType: 'application/zip', buffer });
const replaced = (name, bytes) => peft.map(([title, content]) => [title, title === name ? bytes : content]);

/** Drops a zip and waits for the words of its refusal. */
async function refused(name, entries, options) {
  const { ui } = here;
  await ui.choose('Adapters', [file(name, zip(entries, options))]);
  const alert = ui.region('Adapters').getByRole('alert');
  const said = await until(`the refusal of ${name}`, async () => {
    const failed = await ui.region('Adapters').locator('.fail-name').textContent();
    return failed.startsWith(name.replace('.zip', '')) && alert.textContent();
  });
  assert.equal(await ui.resident(name.replace('.zip', '')).count(), 0, `${name} is not loaded`);
  return said;
}

test('the gallery shows scores before and after, and loads with every hash checked', async () => {
  const { ui } = here;
  const card = ui.card('Storyteller');
  const text = await card.textContent();
  const entry = JSON.parse(await readFile(join(gallery, 'storyteller', 'entry.json')));
  assert.ok(text.includes(entry.licence) && /better/.test(text), text);
  await card.getByRole('button', { name: 'Load Storyteller' }).click();
  await ui.resident('Storyteller').waitFor();
  assert.match(await card.getByRole('status').textContent(), /Loaded, receipt checked/);
  const details = await ui.resident('Storyteller').textContent();
  const { sha256 } = entry.files.find(({ path }) => path === 'adapter_model.safetensors');
  for (const fact of [sha256, 'rank 6', 'q_proj', 'every hash checked']) assert.ok(details.includes(fact), `${fact} in ${details}`);
});

test('a zip of a PEFT folder through the picker; downloaded again it holds the same tensors', async () => {
  const { ui } = here;
  await ui.choose('Adapters', [file('mine.zip', zip(peft.map(([name, bytes]) => [`mine/${name}`, bytes]), { deflate: true }))]);
  await ui.resident('mine').waitFor();
  const hash = createHash('sha256').update(await of('adapter_model.safetensors')).digest('hex');
  assert.ok((await ui.resident('mine').textContent()).includes(hash));
  const { name, bytes } = await ui.download(() => ui.resident('mine').getByRole('button', { name: 'Download mine' }).click());
  assert.match(name, /\.zip$/);
  const files = unzip(bytes);
  const at = Object.keys(files).find((path) => path.endsWith('adapter_model.safetensors'));
  assert.deepEqual(safetensors.read(files[at]), safetensors.read(await of('adapter_model.safetensors')));
});

test('a zip dropped on the page, and an adapter removed', async () => {
  const { ui, page, context } = here;
  const path = join(await folder(), 'dropped.zip');
  await writeFile(path, zip(peft));
  const zone = ui.region('Adapters').getByText('Drop a PEFT adapter here', { exact: false });
  await zone.scrollIntoViewIfNeeded();
  const { x, y } = await zone.boundingBox();
  const session = await context.newCDPSession(page);
  const data = { items: [], files: [path], dragOperationsMask: 1 };
  for (const type of ['dragEnter', 'dragOver', 'drop']) await session.send('Input.dispatchDragEvent', { type, x: x + 5, y: y + 5, data });
  await ui.resident('dropped').waitFor();
  await ui.resident('dropped').getByRole('button', { name: 'Remove dropped' }).click();
  await until('removing it', async () => await ui.resident('dropped').count() === 0);
});

test('an adapter without a receipt is taken, and what cannot be told is said', async () => {
  const { ui } = here;
  await ui.choose('Adapters', [file('bare.zip', zip(peft.slice(0, 2)))]);
  await ui.resident('bare').waitFor();
  assert.match(await ui.resident('bare').textContent(), /without a receipt/);
});

test('an adapter of another base is refused: by its receipt, and by its shapes', async () => {
  const receipt = JSON.parse(await of('qloom.json'));
  const other = JSON.stringify(receipt).replaceAll(/[0-9a-f]{64}/g, (hash) => hash.replace(/./g, (c) => (c === '0' ? '1' : '0')));
  assert.match(await refused('stranger.zip', replaced('qloom.json', other)), /for another base/);
  const tensors = safetensors.read(await of('adapter_model.safetensors'));
  const wide = Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => {
    const shape = name.includes('lora_A') ? [tensor.shape[0], tensor.shape[1] * 2] : tensor.shape;
    return [name, { shape, values: new Float32Array(shape[0] * shape[1]) }];
  }));
  assert.match(await refused('wide.zip', replaced('adapter_model.safetensors', safetensors.write(wide)).slice(0, 2)), /for another base/);
});

test('a zip that unpacks without end or leads out of its folder is refused, as is one that is none', async () => {
  const bomb = Buffer.alloc(64 << 20);
  assert.match(await refused('bomb.zip', replaced('adapter_model.safetensors', bomb), { deflate: true }), /unpacks to more than/);
  assert.match(await refused('climber.zip', [...peft, ['../../outside.txt', 'x']]), /leads out of its folder/);
  const { ui } = here;
  await ui.choose('Adapters', [file('noise.zip', Buffer.from('PK\x03\x04 and nothing more'))]);
  await ui.region('Adapters').getByRole('alert').filter({ hasText: 'cannot be read' }).waitFor();
  await healthy(here);
});
