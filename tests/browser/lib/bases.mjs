// A base with random weights, large enough to come in several pieces: two shards of more than eight mebibytes each, around
// the tokenizer of the site's base.
import { copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { folder } from './native.mjs';
import { write } from './safetensors.mjs';

const hidden = 160;
const inner = 448;
const layers = 18;

/** Writes it into a new folder, which is returned. */
export async function large() {
  const out = await folder();
  const from = join(process.env.QLOOM_WWW, 'base');
  const config = JSON.parse(await readFile(join(from, 'config.json')));
  delete config.quantization_config;
  await writeFile(join(out, 'config.json'), JSON.stringify({ ...config, num_hidden_layers: layers }));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) await copyFile(join(from, name), join(out, name));

  const half = layers / 2;
  const shards = [
    { ...tensor('model.embed_tokens.weight', config.vocab_size, hidden), ...blocks(0, half) },
    { ...blocks(half, layers), ...tensor('model.norm.weight', hidden) },
  ];
  const place = {};
  for (const [at, tensors] of shards.entries()) {
    const name = `model-0000${at + 1}-of-00002.safetensors`;
    await writeFile(join(out, name), write(tensors));
    for (const key of Object.keys(tensors)) place[key] = name;
  }
  await writeFile(join(out, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: place }));
  return out;
}

function blocks(from, to) {
  const all = {};
  for (let at = from; at < to; at += 1) {
    const name = `model.layers.${at}`;
    for (const part of ['q_proj', 'k_proj', 'v_proj', 'o_proj']) Object.assign(all, tensor(`${name}.self_attn.${part}.weight`, hidden, hidden));
    for (const part of ['gate_proj', 'up_proj']) Object.assign(all, tensor(`${name}.mlp.${part}.weight`, inner, hidden));
    Object.assign(all, tensor(`${name}.mlp.down_proj.weight`, hidden, inner));
    for (const part of ['input_layernorm', 'post_attention_layernorm']) Object.assign(all, tensor(`${name}.${part}.weight`, hidden));
  }
  return all;
}

let state = 1;
/** A tensor of numbers within a twentieth of zero, the same on every run; ones for norms. */
function tensor(name, ...shape) {
  const values = new Float32Array(shape.reduce((a, b) => a * b));
  for (let at = 0; at < values.length; at += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[at] = shape.length === 1 ? 1 : (state / 2 ** 32 - 0.5) / 10;
  }
  return { [name]: { shape, values } };
}
