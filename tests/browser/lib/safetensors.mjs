// Safetensors: an eight-byte length, a JSON header, the tensors' bytes (https://github.com/huggingface/safetensors).

/** Tensors by name: `{dtype, shape, bytes}`. */
export function read(file) {
  const length = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + length));
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    tensors[name] = { dtype, shape, bytes: file.subarray(8 + length + from, 8 + length + to) };
  }
  return tensors;
}

/** A file of f32 tensors, `{name: {shape, values}}`. */
export function write(tensors) {
  const [header, bodies] = [{}, []];
  let at = 0;
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + bytes.length] };
    bodies.push(bytes);
    at += bytes.length;
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...bodies]);
}

/** The values of an f32 tensor. */
export function floats({ dtype, bytes }) {
  if (dtype !== 'F32') throw new Error(`expected F32, found ${dtype}`);
  return new Float32Array(Uint8Array.from(bytes).buffer);
}
