import { createHash } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { writeHashes } from './write-hash.ts';

const hash = createHash('sha256').update('weights').digest('hex');
const other = createHash('sha256').update('more').digest('hex');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-hash-'));
  writeFileSync(join(folder, 'net.onnx'), 'weights');
  writeFileSync(join(folder, 'b.onnx'), 'more');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function after(text: string): Promise<string> {
  writeFileSync(join(folder, 'tomaat.yaml'), text);
  await writeHashes(folder);
  return readFileSync(join(folder, 'tomaat.yaml'), 'utf8');
}

describe('writeHashes()', () => {
  it.each([
    ['replaces a hash, and keeps comments and format', "# mine\nid:   x\nmodel:\n  # weights\n  file: net.onnx   # here\n  sha256: 'OLD'  # of it\nlabels: [ ]\n", `# mine\nid:   x\nmodel:\n  # weights\n  file: net.onnx   # here\n  sha256: ${hash}  # of it\nlabels: [ ]\n`],
    ['fills an empty one', 'model:\n  file: net.onnx\n  sha256:\n  x: 1\n', `model:\n  file: net.onnx\n  sha256: ${hash}\n  x: 1\n`],
    ['adds one after the file', 'model:\n    file: net.onnx # here\n    x: 1\n', `model:\n    file: net.onnx # here\n    sha256: ${hash}\n    x: 1\n`],
    ['adds one at the end of a text without a line end', 'model:\n  file: net.onnx', `model:\n  file: net.onnx\n  sha256: ${hash}`],
    ['adds one in lines of Windows', 'model:\r\n  file: net.onnx\r\n', `model:\r\n  file: net.onnx\r\n  sha256: ${hash}\r\n`],
    ['adds one in braces', 'model: { file: net.onnx, x: 1 }\n', `model: { file: net.onnx, sha256: ${hash}, x: 1 }\n`],
    ['writes that of each of several models', 'model:\n  - file: net.onnx\n    sha256: a\n  - { sha256: "b", file: b.onnx }\n  - command: [x]\n', `model:\n  - file: net.onnx\n    sha256: ${hash}\n  - { sha256: ${other}, file: b.onnx }\n  - command: [x]\n`],
    ['adds one in a list', 'model:\n  - file: net.onnx\n    x: 1\n', `model:\n  - file: net.onnx\n    sha256: ${hash}\n    x: 1\n`],
  ])('%s', async (_, text, expected) => {
    expect(await after(text)).toBe(expected);
    expect(await after(expected)).toBe(expected);
  }); // biome-ignore format: one table

  it('keeps the mode of the file', async () => {
    writeFileSync(join(folder, 'tomaat.yaml'), 'model:\n  file: net.onnx\n');
    chmodSync(join(folder, 'tomaat.yaml'), 0o640);
    await writeHashes(folder);
    expect(statSync(join(folder, 'tomaat.yaml')).mode & 0o777).toBe(0o640);
  });

  it.each([
    ['model: { file: gone.onnx }', /gone\.onnx, which the manifest names, is not in/],
    ['model: { command: [x] }', /names a file/],
    ['id: x', /has no model/],
    ['a: [', /is not YAML/],
  ])('refuses %s', async (text, message) => {
    await expect(after(text)).rejects.toThrow(message);
    expect(readFileSync(join(folder, 'tomaat.yaml'), 'utf8')).toBe(text);
  });
});
