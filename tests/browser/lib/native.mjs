// The trainer on the command line, on the CPU in f32: what the page is held to.
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { floats, read } from './safetensors.mjs';

const run = promisify(execFile);
const exact = ['--device', 'cpu', '--compute', 'f32'];

/** Runs a command of the trainer; what it prints on stdout. */
export async function trainer(args, options = {}) {
  const { stdout } = await run(process.env.QLOOM_TRAINER, args, { maxBuffer: 1 << 26, ...options });
  return stdout;
}

/** An empty folder. */
export const folder = () => mkdtemp(join(tmpdir(), 'qloom-native-'));

const options = ({ base, adapter }) => [...(base ? ['--base', base] : []), ...(adapter ? ['--adapter', adapter] : [])];

/** Logits of a row of token ids: `{vocab, values}`, position after position. */
export async function logits(model, ids) {
  const work = await folder();
  await writeFile(join(work, 'ids.json'), JSON.stringify([ids]));
  const out = join(work, 'out.safetensors');
  await trainer(['probe', ...options(model), ...exact, '--ids', join(work, 'ids.json'), '--out', out]);
  const tensor = read(await readFile(out)).logits;
  return { vocab: tensor.shape.at(-1), values: floats(tensor) };
}

/** Greedy text: `{base, adapted, base_ids, adapted_ids}`. */
export async function greedy(model, prompt, tokens, { raw = false } = {}) {
  const args = ['generate', ...options(model), ...exact, '--prompt', prompt, '--max-new-tokens', String(tokens), '--json'];
  return JSON.parse(await trainer([...args, ...(raw ? ['--raw'] : [])]))[0];
}

/** Scores of base and adapter on a file. */
export async function scores(model, data, metrics, more = []) {
  const args = ['eval', ...options(model), ...exact, '--data', data, '--metrics', metrics.join(','), '--json', ...more];
  return JSON.parse(await trainer(args));
}

/** Merges into a new folder; its tensors. */
export async function merged(args) {
  const out = join(await folder(), 'merged');
  await trainer(['merge', ...args, '--device', 'cpu', '--out', out]);
  return read(await readFile(join(out, 'adapter_model.safetensors')));
}

/** Trains a few steps: the run's folder. `tables` are lines of TOML by table. */
export async function train(tables) {
  const work = await folder();
  const all = { ...tables, output: ['dir = "run"'] };
  const toml = Object.entries(all).map(([name, lines]) => `[${name}]\n${lines.join('\n')}\n`).join('\n');
  await writeFile(join(work, 'run.toml'), toml);
  await trainer(['train', 'run.toml', '--device', 'cpu'], { cwd: work });
  return join(work, 'run');
}

/** The small real base beside the checkout, or null. */
export function stories() {
  const found = join(process.env.QLOOM_SHARED, 'data/stories260K');
  return existsSync(join(found, 'model.safetensors')) ? found : null;
}
