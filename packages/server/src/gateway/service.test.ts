import type { Service } from '@tomaat/client';
import type { SeriesFormat } from '@tomaat/core';
import { describe, expect, it } from 'vitest';
import type { Rule } from './config.ts';
import { digestOfInstances, jobKeyOf, seedOf } from './seed.ts';
import { planResults } from './service.ts';

const outputs = [
  { name: 'organs', type: 'LabelVolume', primary: true },
  { name: 'lesions', type: 'LabelVolume', primary: false },
  { name: 'volumes', type: 'Measurements', primary: false, from: 'organs' },
  { name: 'mesh', type: 'VTKMesh', primary: false },
] as unknown as Service['outputs'];
const plan = (results: readonly SeriesFormat[], of = outputs) =>
  planResults({ id: 'a-rule', results }, { id: 'a-service', outputs: of });

describe('planResults()', () => {
  it('makes an object of every label map, and a report of every measurement', () => {
    expect(plan(['seg.dcm', 'sr.dcm', 'rtstruct.dcm'])).toEqual([
      { format: 'seg.dcm', output: 'organs' },
      { format: 'seg.dcm', output: 'lesions' },
      { format: 'sr.dcm', output: 'volumes' },
      { format: 'rtstruct.dcm', output: 'organs' },
      { format: 'rtstruct.dcm', output: 'lesions' },
    ]);
  });

  it.each<[readonly SeriesFormat[], Service['outputs'], string]>([
    [['zip'], outputs, 'Its objects: seg.dcm, labelmap.dcm, rtstruct.dcm, key.dcm, sr.dcm'],
    [['seg.dcm', 'labelmap.dcm'], outputs, 'two forms of the same object'],
    [['sr.dcm'], outputs, 'seg.dcm or labelmap.dcm must be stored too'],
    [['seg.dcm', 'sr.dcm'], outputs.slice(0, 2), 'It gives: seg.dcm, labelmap.dcm, rtstruct.dcm, key.dcm'],
    [['seg.dcm'], outputs.slice(3), 'No output of the service a-service'],
  ])('refuses %j with what is possible', (results, of, message) => {
    expect(() => plan(results, of)).toThrow(message);
    expect(() => plan(results, of)).toThrow('Change the results of the rule a-rule.');
  });
});

describe('seedOf()', () => {
  const rule: Rule = {
    id: 'a-rule',
    when: {},
    service: 'name',
    destinations: ['a'],
    parameters: {},
    results: ['seg.dcm'],
    keepIdentity: false,
    keepPatientCharacteristics: false,
    urgency: 3,
  };
  const service = {
    id: 'a-service',
    version: '1.0.0',
    modelSha256: 'ab',
    inputs: [
      { name: 'volume', type: 'volume' },
      { name: 'level', type: 'slider', minimum: 0, maximum: 9, default: 4 },
      { name: 'fast', type: 'checkbox', default: false },
    ],
  } as unknown as Service;
  const config = { url: 'https://host:9000', service: 'a-service' };
  const digest = digestOfInstances(['1.2.3', '1.2.4']);
  const seed = (more: { rule?: Partial<Rule>; service?: object; config?: object; digest?: string } = {}) =>
    seedOf({
      rule: { ...rule, ...more.rule },
      config: { ...config, ...more.config },
      service: { ...service, ...more.service },
      digest: more.digest ?? digest,
    });

  it('differs where the result may differ', () => {
    const seeds = [
      seed(),
      seed({ rule: { id: 'another' } }),
      seed({ rule: { parameters: { level: 5 } } }),
      seed({ rule: { keepPatientCharacteristics: true } }),
      seed({ rule: { keepIdentity: true } }),
      seed({ service: { version: '1.0.1' } }),
      seed({ service: { id: 'other' } }),
      seed({ service: { modelSha256: 'ac' } }),
      seed({ service: { modelSha256s: ['ab', 'ac'] } }),
      seed({ config: { url: 'https://other:9000' } }),
      seed({ digest: digestOfInstances(['1.2.3', '1.2.4', '1.2.5']) }),
    ];
    expect(new Set(seeds).size).toBe(seeds.length);
    for (const one of seeds) expect(one).toMatch(/^[0-9a-f]{64}$/);
  });

  it('is the same where the result is the same', () => {
    const same = [
      seed({ rule: { parameters: { level: 4 } } }),
      seed({ rule: { parameters: { fast: false, level: 4 } } }),
      seed({ rule: { destinations: ['b'], results: ['seg.dcm', 'sr.dcm'], urgency: 0 } }),
      seed({ config: { url: 'https://host:9000/', apiKey: 'another' } }),
      seed({ digest: digestOfInstances(['1.2.4', '1.2.3', '1.2.4']) }),
    ];
    expect(new Set(same)).toEqual(new Set([seed()]));
  });

  it('is not told to the service by the key of the job, which is the gateway’s own', () => {
    const [key, another] = [1, 2].map((fill) => jobKeyOf(seed(), new Uint8Array(32).fill(fill)));
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    expect(new Set([key, another, seed()]).size).toBe(3);
  });
});
