// Zips, as simple as PKWARE's APPNOTE 4.3 allows: what tests drop on the page, and what they read of its exports.
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';

/** A zip of `[name, bytes]` pairs. Names are written as they are, also those that lead out of the archive. */
export function zip(entries, { deflate = false } = {}) {
  const [bodies, directory] = [[], []];
  let at = 0;
  for (const [name, content] of entries) {
    const [title, bytes] = [Buffer.from(name), Buffer.from(content)];
    const packed = deflate ? deflateRawSync(bytes, { level: 9 }) : bytes;
    const shared = Buffer.alloc(26);
    shared.writeUInt16LE(20, 0);
    shared.writeUInt16LE(deflate ? 8 : 0, 4);
    shared.writeUInt16LE(0x21, 8); // 1 January 1980
    shared.writeUInt32LE(crc32(bytes), 10);
    shared.writeUInt32LE(packed.length, 14);
    shared.writeUInt32LE(bytes.length, 18);
    shared.writeUInt16LE(title.length, 22);
    bodies.push(Buffer.from('PK\x03\x04'), shared, title, packed);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(at, 10);
    directory.push(Buffer.from('PK\x01\x02'), Buffer.from([20, 0]), shared, rest, title);
    at += 30 + title.length + packed.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 0, 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...bodies, central, end]);
}

/** The files of a zip, by name. */
export function unzip(bytes) {
  const files = {};
  const end = bytes.lastIndexOf('PK\x05\x06', undefined, 'latin1');
  let at = bytes.readUInt32LE(end + 16);
  for (let left = bytes.readUInt16LE(end + 10); left > 0; left -= 1) {
    const [method, packed] = [bytes.readUInt16LE(at + 10), bytes.readUInt32LE(at + 20)];
    const [name, extra, comment] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field));
    const local = bytes.readUInt32LE(at + 42);
    const start = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const body = bytes.subarray(start, start + packed);
    files[bytes.toString('utf8', at + 46, at + 46 + name)] = method === 8 ? inflateRawSync(body) : body;
    at += 46 + name + extra + comment;
  }
  return files;
}
