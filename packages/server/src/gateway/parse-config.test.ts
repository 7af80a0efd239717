import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { changed, faultsOf, file, folder, useConfigFiles, whole } from '../../test/gateway-config-fixture.ts';
import { parseGatewayConfig } from './parse-config.ts';

useConfigFiles();

describe('parseGatewayConfig()', () => {
  it('gives durations in ms, absolute paths, secrets, and defaults', () => {
    const { config, warnings } = parseGatewayConfig(whole, file);
    expect(warnings).toEqual([]);
    expect(config).toEqual({
      sources: {
        pacs: {
          type: 'orthanc',
          url: 'http://127.0.0.1:8042/dicom-web',
          authorization: `Basic ${Buffer.from('gateway:pässword').toString('base64')}`,
          caFile: undefined,
          hookSecret: '0123456789abcdef',
          pollMs: 300_000,
          sinceDays: 7,
          quietMs: 60_000,
        },
        archive: {
          type: 'dicomweb',
          url: 'https://archive.example/rs',
          authorization: 'Bearer abc.def',
          caFile: join(folder, 'ca.pem'),
          pollMs: 60_000,
          sinceDays: 3,
          quietMs: 0,
        },
        inbox: { type: 'folder', path: join(folder, 'inbox'), pollMs: 10_000, quietMs: 30_000 },
      },
      services: {
        lungs: {
          url: 'https://server.example:9443',
          service: 'ct-lung',
          apiKey: 'tmt_key',
          caFile: join(folder, 'ca.pem'),
          fingerprint: undefined,
        },
      },
      destinations: {
        back: {
          type: 'dicomweb',
          url: 'http://127.0.0.1:8042/dicom-web',
          authorization: `Basic ${Buffer.from('gateway:pässword').toString('base64')}`,
          caFile: undefined,
        },
        other: {
          type: 'dicomweb',
          url: 'https://other.example/rs',
          authorization: 'Bearer abc.def',
          caFile: undefined,
        },
        kept: { type: 'folder', path: join(folder, 'results') },
      },
      rules: [
        {
          id: 'ct-chest',
          when: {
            sources: ['pacs', 'archive'],
            modality: ['CT'],
            bodyPart: ['chest', 'thorax'],
            description: ['*thorax*', '胸部*'],
            slices: { min: 20 },
            sliceSpacingMm: { max: 5 },
            not: { description: ['*topogram*'] },
          },
          service: 'lungs',
          destinations: ['back', 'other'],
          parameters: { threshold: 0.5 },
          results: ['seg.dcm', 'sr.dcm'],
          keepIdentity: false,
          keepPatientCharacteristics: false,
          urgency: 2,
        },
        {
          id: 'inbox',
          when: { sources: ['inbox'] },
          service: 'lungs',
          destinations: ['kept'],
          parameters: {},
          results: ['seg.dcm'],
          keepIdentity: true,
          keepPatientCharacteristics: false,
          urgency: 3,
        },
      ],
      limits: {
        concurrency: 4,
        firstPauseMs: 10_000,
        longestPauseMs: 600_000,
        giveUpMs: 3 * 86_400_000,
        keepMs: 30 * 86_400_000,
        maxSeriesBytes: 4 * 1024 ** 3,
      },
    });
  });

  it('lists faults of every kind at once, in the order of the file', () => {
    const text = whole
      .replace('poll: 5m', 'poll: soon')
      .replace('passwordFile: pacs.password', 'passwordFile: no.password')
      .replace('https://other.example/rs', 'other')
      .replace('[back, other]', '[bak]')
      .replace('service: lungs\n    destinations: [kept]', 'service: liver\n    destinations: [kept]')
      .replace('concurrency: 4', 'concurrency: 4.5, more: 1, evenMore: 2');
    const faults = faultsOf(text);
    expect(faults.map((fault) => fault.split(': ')[0])).toEqual([
      '3 sources.pacs.poll',
      '3 sources.pacs.passwordFile',
      '10 destinations.other.url',
      '16 rules.0.destinations.0',
      '22 rules.1.service',
      '25 limits.concurrency',
      '25 limits',
      '25 limits',
    ]);
  });

  it('shows no secret in any message', () => {
    const faults = faultsOf(
      whole
        .replace('user: gateway', 'tokenFile: two-lines.secret')
        .replace('hookSecretFile: hook.secret', 'hookSecretFile: spaces.secret, hookSecret: geheim')
        .replace('apiKeyFile: lungs.key', 'apiKey: geheim'),
    );
    expect(faults.length).toBeGreaterThan(1);
    expect(faults.join()).not.toMatch(/geheim|0123456789/);
  });

  it.each([
    ['nothing', '', /must be a map with the keys schemaVersion/],
    ['a text', 'hello', /\(whole file\)/],
    ['a list', '- a', /\(whole file\)/],
    ['lists without end', '['.repeat(5_000), /too many levels/],
    [
      'aliases that expand',
      `a: &a [x, x]\n${Array.from({ length: 30 }, (_, i) => `b${i}: &b${i} [*${i ? `b${i - 1}` : 'a'}, *${i ? `b${i - 1}` : 'a'}]`).join('\n')}`,
      /alias/i,
    ],
    ['a megabyte', `# ${'x'.repeat(1_000_000)}`, /more than 1000000 characters/],
    [
      '2,000 rules',
      `${whole.split('rules:')[0]}rules: [${'{},'.repeat(2_000)}]`,
      /more than 1000 rules|is missing/,
    ],
    ['another file’s names', '__proto__: { a: 1 }\nconstructor: 2', /unknown key/],
  ])('refuses %s in bounded time', (_, text, message) => {
    const started = performance.now();
    expect(faultsOf(text).join('\n')).toMatch(message);
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('warns of what is not used, and of what is probably not meant', () => {
    const text = whole
      .replace('[back, other]', '[kept]')
      .replace('sources: [pacs, archive], modality: ct', 'sources: [pacs], modality: [MRI]')
      .replace('https://archive.example/rs', 'https://other.example/x')
      .replace(
        'https://server.example:9443/, service: ct-lung, apiKeyFile: lungs.key, caFile: ca.pem',
        'http://10.1.2.3:9000, service: ct-lung',
      )
      .replace('identity: keep', 'identity: remove');
    const { warnings } = parseGatewayConfig(text, file);
    expect(warnings.map(({ line, path, message }) => `${line} ${path}: ${message}`)).toEqual([
      '4 sources.archive: is used by no rule',
      '7 services.lungs.url: images are sent unencrypted. Use https',
      '9 destinations.back: is used by no rule',
      '10 destinations.other: is used by no rule',
      '14 rules.0.when.modality.0: MRI is not a modality of DICOM. Did you mean MR?',
    ]);
  });

  it.each(['^(a+)+$', '.*thorax.*'])('warns that %s is no pattern of a rule', (pattern) => {
    const text = changed(
      'sources: [pacs, archive], modality: ct',
      `sources: [pacs, archive], modality: ct, studyDescription: "${pattern}"`,
    );
    expect(parseGatewayConfig(text, file).warnings).toEqual([
      {
        line: 14,
        path: 'rules.0.when.studyDescription.0',
        message: 'looks like a regular expression, and is compared as text. Only * and ? stand for others',
      },
    ]);
  });

  it('warns of two sources that are the same archive', () => {
    const text = changed('https://archive.example/rs', 'http://127.0.0.1:8042/dicom-web');
    const { warnings } = parseGatewayConfig(
      text.replace('tokenFile: archive.token, caFile: ca.pem, quiet', 'quiet'),
      file,
    );
    expect(warnings.map(({ message }) => message)).toEqual([
      'has the same series as pacs: a rule for both may process them twice',
    ]);
  });
});
