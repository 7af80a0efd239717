import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runKinds, withLongRuns } from '../fuzz/long-runs.ts';
import { fuzz } from '../fuzz/main.ts';
import { createRandom, minimise, mutate } from '../fuzz/mutate.ts';
import { targets } from '../fuzz/targets.ts';

let out: string;
beforeAll(async () => {
  out = await mkdtemp(join(tmpdir(), 'tomaat-fuzz-test-'));
});
afterAll(() => rm(out, { recursive: true, force: true }));

/** Those that read YAML, or start a stream for each member, take milliseconds per input. */
const slow = ['manifest', 'gatewayRules', 'members'];
const inputsOf = (name: string) => (slow.includes(name) ? 300 : 2000);

describe('a short run finds nothing', () => {
  it.each(Object.keys(targets))('%s', async (name) => {
    const { found, inputs, accepted } = await fuzz(name, {
      inputs: inputsOf(name),
      seed: 2026,
      coverage: false,
      out,
    });
    expect(found).toEqual([]);
    expect(inputs).toBeGreaterThanOrEqual(inputsOf(name));
    // Where nothing is taken, no promise is looked at.
    expect(accepted).toBeGreaterThan(0);
    expect(await readdir(out)).toEqual([]);
  });
});

it('mutate() makes the same inputs of the same seed', () => {
  const input = Buffer.from('sizes: 15 14 14\nencoding: raw\n\n');
  const inputs = (seed: number) => {
    const random = createRandom(seed);
    return Array.from({ length: 200 }, () =>
      Buffer.from(mutate(input, input, random, { words: ['nan'], maxBytes: 300 })).toString('hex'),
    );
  };
  expect(inputs(5)).toEqual(inputs(5));
  expect(inputs(5)).not.toEqual(inputs(6));
  expect(new Set(inputs(5)).size).toBeGreaterThan(100);
});

it('minimise() leaves what fails', async () => {
  const input = Buffer.from(`${'a'.repeat(500)}[[${'b'.repeat(500)}`);
  const small = await minimise(input, async (bytes) => Buffer.from(bytes).includes('[['));
  expect(Buffer.from(small).toString()).toBe('[[');
});

it('withLongRuns() puts a run of each kind at each place', () => {
  const inputs = [...withLongRuns({ texts: ['a…: …b\n', 'c…'], length: 6 })].map((bytes) =>
    Buffer.from(bytes).toString('latin1'),
  );
  expect(inputs.length).toBe(3 * Object.keys(runKinds).length);
  for (const input of ['a777777!: b\n', 'a: 777777!b\n', 'c      !', 'c\n\n\n\n\n\n!', 'anan nan !: b\n'])
    expect(inputs).toContain(input);
});

it.each([
  'nrrd',
  'metaimage',
  'identifying-text',
  'tfm',
  'mesh',
  'parameters',
  'manifest',
  'json',
  'headers',
  'tus-metadata',
  'form-header',
  'multipart',
  'multipart-related',
  'related-type',
  'dicom-json',
  'urlencoded',
  'base64',
  'v1-transform',
])('%s has places for long runs of every kind of character', (name) => {
  const { longRuns } = targets[name];
  expect(longRuns?.texts.some((text) => text.includes('…'))).toBe(true);
  const kinds = Object.values(runKinds);
  for (const kind of [/^\d$/, /^[a-z]$/, /^ $/, /^\t$/, /^\n$/, /^[-.,;:=("[]$/])
    expect(kinds.some((piece) => kind.test(piece))).toBe(true);
});

it('the seeds of every target are taken, but those that show a refusal', async () => {
  for (const [name, target] of Object.entries(targets)) {
    let taken = 0;
    for (const seed of await target.seeds()) {
      try {
        await target.run(seed);
        taken++;
      } catch (error) {
        if (!(error instanceof TomaatError)) throw error;
      }
    }
    expect(taken, name).toBeGreaterThan(0);
  }
});
