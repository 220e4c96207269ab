// The browser's numbers beside the trainer's on the CPU, in f32: losses by token against logits, greedy text, perplexity.
import { strict as assert } from 'node:assert';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { join } from 'node:path';

import { launch } from './lib/browser.mjs';
import { Engine } from './lib/engine.mjs';
import { folder, greedy, logits, scores, stories, train } from './lib/native.mjs';
import { site } from './lib/visit.mjs';

const real = stories();
const embedded = join(process.env.QLOOM_WWW, 'base');
const story = 'Once upon a time there was a little dog. The dog sat in the house and Lily said hello to it.';
let [served, browser, engine, trained] = [];

before(async () => {
  if (real) {
    const work = await folder();
    const data = join(work, 'train.jsonl');
    await writeFile(data, `${JSON.stringify({ text: story })}\n`.repeat(8));
    trained = join(await train({
      model: [`base = ${JSON.stringify(real)}`, 'quantization = "none"', 'compute = "f32"'],
      lora: ['rank = 4', 'alpha = 16', 'target_modules = "all-linear"'],
      data: [`train = ${JSON.stringify(data)}`, 'format = "text"', 'max_length = 64'],
      train: ['max_steps = 8', 'batch_size = 4', 'lr = 4e-3'],
    }), 'adapter');
  }
  served = await site(real ? { '/stories/': real, '/trained/': trained } : {});
  browser = await launch();
  engine = await Engine.start(browser.context, served);
});
after(async () => { await browser?.close(); await served?.close(); });

/** Ids of tokens by their text, as the vocabulary of a byte-level or a sentence-piece tokenizer spells it. */
async function lookup(base) {
  const { model, added_tokens: added, pre_tokenizer: before } = JSON.parse(await readFile(join(base, 'tokenizer.json')));
  const space = before?.type === 'ByteLevel' ? 'Ġ' : '▁';
  return ({ text }, at) => {
    const special = added.find((token) => token.content === text);
    const spelled = text.replaceAll(' ', space).replaceAll('\n', 'Ċ');
    // The first word of a sentence-piece text has a space of the tokenizer's before it, which the text has not.
    const id = special?.id ?? (at === 1 && space === '▁' ? model.vocab[space + spelled] : undefined) ?? model.vocab[spelled];
    assert.notEqual(id, undefined, `${JSON.stringify(text)} is in the vocabulary`);
    return id;
  };
}

/** Losses of a row's tokens after the first, from logits. */
function losses({ vocab, values }, ids) {
  return ids.slice(1).map((id, at) => {
    const row = values.subarray(at * vocab, (at + 1) * vocab);
    const most = row.reduce((a, b) => Math.max(a, b));
    return Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0)) + most - row[id];
  });
}

/** Every loss within 1e-3 of the largest, and of itself where it is not small. Returns the worst. */
function close(found, expected, what) {
  const scale = Math.max(...expected);
  const worst = Math.max(...found.map((loss, at) => Math.abs(loss - expected[at]) / scale));
  assert.equal(found.length, expected.length, `${what}: tokens scored`);
  assert.ok(worst <= 1e-3, `${what}: a token's loss is ${worst} of the largest away`);
  return worst;
}

async function lossesAgree(t, base, models, text) {
  const id = await lookup(base);
  const columns = await engine.losses(text, models.map(({ name }) => (name ? [name] : [])));
  for (const [at, { name, adapter }] of models.entries()) {
    const ids = columns[at].map(id);
    const expected = losses(await logits({ base, adapter }, ids), ids);
    const first = columns[at].findIndex((token) => token.nll !== null && token.nll !== undefined);
    const worst = close(columns[at].slice(first).map((token) => token.nll), expected.slice(first - 1), name ?? 'base');
    t.diagnostic(`${name ?? 'base'}: ${ids.length} tokens, worst ${worst.toExponential(1)} relative`);
  }
}

const adapterOf = (name) => join(process.env.QLOOM_WWW, 'adapters', name);

describe('the embedded base', () => {
  before(async () => {
    const base = await engine.base();
    assert.equal(base.quantization, 'nf4');
    assert.equal(engine.device.kind, 'web_gpu');
    assert.equal(engine.device.f16, false);
    for (const name of ['sentiment', 'instructions']) await engine.adapter(name, `adapters/${name}`);
  });

  test('losses of tokens follow from the trainer\'s logits, with and without adapters', async (t) => {
    const models = [{}, ...['sentiment', 'instructions'].map((name) => ({ name, adapter: adapterOf(name) }))];
    await lossesAgree(t, embedded, models, 'The soup in the kitchen was warm and good, and the bread was fresh.');
  });

  test('greedy text is identical, with the chat template and without, and tokens count the same', async () => {
    for (const [prompt, raw] of [['Who is in the garden?', false], ['Late in the afternoon, David', true]]) {
      const turns = [{ role: 'user', content: prompt }];
      const asked = raw ? { as: 'text', text: prompt } : { as: 'chat', turns };
      const { texts, done } = await engine.greedy(asked, 16, [[], ['instructions']]);
      const native = await greedy({ adapter: adapterOf('instructions') }, prompt, 16, { raw });
      assert.deepEqual(texts, [native.base, native.adapted]);
      assert.deepEqual(done.map((column) => column.finish === 'length'), [native.base_ids, native.adapted_ids].map((ids) => ids.length === 16));
    }
  });

  test('perplexity of a file is the trainer\'s', async () => {
    const rows = (await readFile(join(process.env.QLOOM_WWW, 'data/instructions.jsonl'), 'utf8')).split('\n').slice(0, 2);
    const file = join(await folder(), 'two.jsonl');
    await writeFile(file, `${rows.join('\n')}\n`);
    const data = { from: 'file', file: { name: 'two.jsonl', attachment: 0 } };
    const columns = [{ adapters: [] }, { adapters: ['instructions'] }];
    const options = { metrics: ['perplexity'] };
    const { last } = await engine.ask({ do: 'evaluate', data, columns, options }, { files: [await readFile(file)] });
    const native = await scores({ adapter: adapterOf('instructions') }, file, ['perplexity']);
    for (const [at, expected] of [native.base, native.adapted].entries()) {
      const { value } = last.columns[at].metrics.find(({ name }) => name === 'perplexity');
      assert.ok(Math.abs(value / expected.perplexity - 1) <= 1e-3, `${value}, the trainer's ${expected.perplexity}`);
      assert.equal(last.columns[at].tokens, expected.tokens);
    }
  });
});

describe('stories260K', { skip: !real && 'there is no shared data' }, () => {
  before(async () => {
    const base = await engine.base('stories/');
    assert.equal(base.quantization, 'none');
    await engine.adapter('trained', 'trained/');
  });

  test('losses of tokens follow from the trainer\'s logits, with and without an adapter', async (t) => {
    await lossesAgree(t, real, [{}, { name: 'trained', adapter: trained }], story);
  });

  test('greedy text is identical, and begins as the independent implementation\'s', async () => {
    const { texts } = await engine.greedy({ as: 'text', text: 'Once upon a time' }, 24, [[], ['trained']]);
    const native = await greedy({ base: real, adapter: trained }, 'Once upon a time', 24, { raw: true });
    assert.deepEqual(texts, [native.base, native.adapted]);
    const golden = JSON.parse(await readFile(join(real, 'greedy_golden.json')));
    assert.ok(golden.text.startsWith(`Once upon a time${texts[0]}`), texts[0]);
    assert.notEqual(texts[1], texts[0], 'the adapter changes something');
  });
});
