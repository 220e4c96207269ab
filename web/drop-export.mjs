// Removes an export from a WebAssembly module, so that wasm-opt can remove what only it kept alive.
//
//   node drop-export.mjs NAME INPUT OUTPUT

import fs from 'node:fs';

const EXPORTS = 7; // WebAssembly core specification, "Modules": section ids
const [name, input, output] = process.argv.slice(2);
const wasm = fs.readFileSync(input);

/** An unsigned LEB128 number at `at`: its value, and where it ends. */
function number(at) {
  let [value, scale] = [0, 1];
  for (;;) {
    const byte = wasm[at++];
    value += (byte & 127) * scale;
    if (byte < 128) return [value, at];
    scale *= 128;
  }
}

function encoded(value) {
  const bytes = [];
  do {
    bytes.push((value & 127) | (value > 127 ? 128 : 0));
    value = Math.floor(value / 128);
  } while (value);
  return Buffer.from(bytes);
}

/** The export section without `name`. */
function without(start, end) {
  let [count, at] = number(start);
  const kept = [];
  for (let left = count; left > 0; left -= 1) {
    const from = at;
    const [length, text] = number(at);
    at = number(text + length + 1)[1]; // past the name, the kind and the index
    if (wasm.toString('utf8', text, text + length) !== name) kept.push(wasm.subarray(from, at));
  }
  if (at !== end || kept.length !== count - 1) throw new Error(`${input}: expected one export ${name}`);
  return Buffer.concat([encoded(kept.length), ...kept]);
}

const parts = [wasm.subarray(0, 8)];
for (let at = 8; at < wasm.length; ) {
  const [size, start] = number(at + 1);
  const end = start + size;
  if (wasm[at] === EXPORTS) {
    const section = without(start, end);
    parts.push(Buffer.from([EXPORTS]), encoded(section.length), section);
  } else {
    parts.push(wasm.subarray(at, end));
  }
  at = end;
}
fs.writeFileSync(output, Buffer.concat(parts));
