import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Entry } from '@tomaat/client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openKeyFolder } from '../src/access/key-folder.ts';
import { listKeys } from '../src/access/keys.ts';
import { loadConfig } from '../src/config.ts';
import { deadAddress, fakeServer, temporaryFolder, tomaat } from './cli-fixture.ts';
import { databaseOf } from './support/tested-database.ts';

let folder: { path: string; remove(): void };
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => folder.remove());

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/** A Node that is too old, if this machine has one. */
const oldNode = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => {
  if (!existsSync(path)) return false;
  const major = Number(execFileSync(path, ['--version'], { encoding: 'utf8' }).slice(1).split('.')[0]);
  return major >= 18 && major < 24;
});

describe('tomaat', () => {
  it('--version, help and a bare call: 0', async () => {
    expect(await tomaat(['--version'])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' });
    for (const args of [['help'], ['--help'], ['help', 'predict'], ['predict', '--help'], []]) {
      const { code, stdout, stderr } = await tomaat(args);
      expect({ args, code }).toEqual({ args, code: 0 });
      expect(stdout + stderr).toContain('Usage: tomaat');
    }
  });

  it('a wrong call: 2, with a hint', async () => {
    const { code, stderr } = await tomaat(['pridict']);
    expect(code).toBe(2);
    expect(stderr).toContain('Did you mean predict?');
    expect(await tomaat(['predict'])).toMatchObject({ code: 2 });
    expect(await tomaat(['keys', 'create'])).toMatchObject({ code: 2 });
    expect(await tomaat(['keys', 'frobnicate'])).toMatchObject({ code: 2 });
  });

  it.skipIf(!oldNode)(
    'started by an older Node it relays the pinned one’s exit code and signals',
    async () => {
      expect(await tomaat(['--version'], { node: oldNode })).toMatchObject({
        code: 0,
        stdout: `${version}\n`,
        stderr: '',
      });
      expect(await tomaat(['pridict'], { node: oldNode })).toMatchObject({ code: 2 });
      const server = await fakeServer({ course: () => [{ state: 'running' }] });
      writeFileSync(join(folder.path, 'a.nii'), 'x');
      let sent = false;
      const { code } = await tomaat(['predict', server.url, '--volume', join(folder.path, 'a.nii')], {
        node: oldNode,
        onStderr(text, kill) {
          if (sent || !text.includes('Running')) return;
          sent = true;
          kill('SIGINT');
        },
      });
      expect(code).toBe(130);
      expect(server.jobs.get('job-1')?.state).toBe('canceled');
      await server.close();
    },
  );
});

const entry = (more: Partial<Entry>): Entry => ({
  sid: 's1',
  name: 'Prostate',
  modality: 'MRI',
  anatomy: 'prostate',
  task: 'segmentation',
  description: '',
  predictionUrl: 'https://h:9443/services/p/predict',
  interfaceUrl: 'https://h:9443/services/p/interface',
  serverUrl: 'http://h:9000',
  serviceId: 'p',
  face: 'api',
  live: true,
  announcedTime: '',
  expiresTime: '',
  ...more,
});

describe('tomaat discover', () => {
  it('prints a table whose addresses predict takes, or JSON', async () => {
    const registry = await fakeServer({
      entries: [
        entry({}),
        entry({
          sid: 's2',
          name: 'Evil \u001b[2Jname',
          face: 'v1',
          serverUrl: undefined,
          serviceId: undefined,
          anatomy: 'liver',
        }),
      ],
    });
    const { code, stdout } = await tomaat(['discover', registry.url]);
    expect(code).toBe(0);
    expect(stdout.split('\n')[0]).toMatch(/^NAME +MODALITY +ANATOMY +TASK +ADDRESS +KEY$/);
    expect(stdout).toContain('http://h:9000/services/p');
    expect(stdout).toContain('https://h:9443/services/p/predict');
    expect(stdout).toMatch(/http:\/\/h:9000\/services\/p +[\w-]{8}…/);
    expect(stdout).toMatch(/h:9443\/services\/p\/predict +unsigned/);
    expect(stdout).not.toContain('\u001b[2J');
    const json = await tomaat(['discover', registry.url, '--json']);
    expect(JSON.parse(json.stdout)).toHaveLength(2);
    await registry.close();
  });

  it('prints no invisible characters, whatever their source', async () => {
    const trick = 'Lung\n/tmp/forged.nii.gz\u202e\u001b[2J\u009b2J\u200b';
    const shown = 'Lung\\n/tmp/forged.nii.gz\\u202e\\u001b[2J\\u009b2J\\u200b';
    const registry = await fakeServer({
      entries: [
        entry({ name: trick, anatomy: trick }),
        entry({ sid: 's2', name: 'Other', serviceId: trick }),
      ],
    });
    const service = ['--volume', 'scan.nii.gz', '--registry', registry.url];
    const runs = [
      await tomaat(['discover', registry.url]),
      await tomaat(['discover', registry.url, '--json']),
      await tomaat(['predict', 'nothing-such', ...service]),
      await tomaat(['predict', `${registry.url}/services/${encodeURIComponent(trick)}`, '--volume', 'x.nii']),
      await tomaat(['nonsense\u202e']),
    ];
    for (const { stdout, stderr } of runs.slice(0, 4)) {
      const text = stdout + stderr;
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
      expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b\u202e]/);
      expect(text.split('\n').filter((line) => line.startsWith('/tmp/forged'))).toEqual([]);
    }
    expect(runs[0].stdout).toContain(shown);
    expect(JSON.parse(runs[1].stdout)[0].name).toBe(trick);
    expect(runs[2].stderr).toContain(shown);
    await registry.close();
  });

  it('asks a registry of TOMAAT v1 in v1', async () => {
    const server = createServer((request, response) => {
      if (request.url !== '/discover') return response.writeHead(404).end('no');
      const old = {
        prediction_url: 'https://old:9000/predict',
        interface_url: '',
        name: 'Old',
        modality: 'CT',
        anatomy: 'Liver',
        task: 'Segmentation',
      };
      return response.end(JSON.stringify([{ ...old, SID: 'x', creation_time: 1e9 }]));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect((await tomaat(['discover', url])).stdout).toMatch(
      /Old +CT +Liver +Segmentation +https:\/\/old:9000\/predict/,
    );
    expect((await tomaat(['discover', url, '--anatomy', 'brain'])).stdout).toContain(
      'matches. Remove a filter',
    );
    server.close();
  });

  it('states the remedy for a missing registry', async () => {
    const address = await deadAddress();
    const { code, stderr } = await tomaat(['discover', address]);
    expect(code).toBe(1);
    expect(stderr).toContain(`Nothing listens at ${address.slice(7)}`);
    expect(await tomaat(['discover', 'registry.example'])).toMatchObject({ code: 2 });
  });
});

describe('tomaat keys', () => {
  it('create prints the key once, list never, revoke ends it', async () => {
    const data = ['--data', join(folder.path, 'data')];
    expect((await tomaat(['keys', 'list', ...data])).stdout).toContain('There are no keys');
    expect(existsSync(join(folder.path, 'data'))).toBe(false);
    const made = await tomaat(['keys', 'create', '--label', 'liver server', '--expires', '90d', ...data]);
    expect(made.code).toBe(0);
    expect(made.stdout).toMatch(/^tmt_[a-z2-7]{10}_[\w-]{43}\n$/);
    const id = made.stdout.split('_')[1];
    expect(made.stderr).toContain(`Key ${id} (liver server; may announce, until `);
    const listed = await tomaat(['keys', 'list', ...data]);
    expect(listed.stdout).toMatch(new RegExp(`${id} +liver server +announce +\\d{4}-\\d\\d-\\d\\d +until`));
    expect(listed.stdout).not.toContain(made.stdout.trim().slice('tmt_'.length + id.length + 1));
    expect((await tomaat(['keys', 'revoke', id, ...data])).stdout).toContain('is revoked');
    expect(
      JSON.parse((await tomaat(['keys', 'list', '--json', ...data])).stdout)[0].revokedTime,
    ).toBeTruthy();
    expect(await tomaat(['keys', 'revoke', 'nothing', ...data])).toMatchObject({ code: 2 });
  });

  it('makes concurrent programs’ keys in a new folder, each in both databases', async () => {
    const data = ['--data', join(folder.path, 'new')];
    const labels = ['a', 'b', 'c', 'd', 'e'];
    const all = await Promise.all(
      labels.map((label) => tomaat(['keys', 'create', '--label', label, ...data])),
    );
    expect(all.map(({ code, stderr }) => [code, code === 0 ? '' : stderr])).toEqual(
      labels.map(() => [0, '']),
    );
    const made = join(folder.path, 'new');
    await using keys = await openKeyFolder(made, ['server', 'registry'], { shared: await databaseOf(made) });
    for (const db of keys.databases)
      expect((await listKeys(db)).map(({ label }) => label).sort()).toEqual(labels);
  });

  it.each([
    [['--label', 'x', '--scope', 'everything'], 'Available: announce'],
    [['--label', 'x', '--expires', 'soon'], 'Give a date such as'],
    [['--label', 'x', '--expires', '2001-01-01'], 'past'],
  ])('create %s: 2', async (extra, message) => {
    const { code, stderr } = await tomaat(['keys', 'create', '--data', folder.path, ...extra]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe('loadConfig()', () => {
  const faultsOf = (layers: Parameters<typeof loadConfig>[0]) => {
    try {
      loadConfig(layers);
    } catch (error) {
      return (error as Error).message;
    }
    return '';
  };

  it('layers defaults, file, environment and flags in this order', () => {
    writeFileSync(
      join(folder.path, 'tomaat.config.yaml'),
      'port: 1111\ntlsPort: 2222\nregistryPort: 3333\nannounce:\n  - http://a\n',
    );
    const { config, sources, file } = loadConfig({
      env: {
        TOMAAT_DATA: folder.path,
        TOMAAT_TLS_PORT: '4444',
        TOMAAT_REGISTRY_PORT: '5555',
        TOMAAT_ALLOW_NET: '10.0.0.0/8, fd00::/8',
      },
      flags: { registryPort: '6666' },
    });
    expect(config).toMatchObject({
      host: '127.0.0.1',
      port: 1111,
      tlsPort: 4444,
      registryPort: 6666,
      announce: ['http://a'],
      allowNet: ['10.0.0.0/8', 'fd00::/8'],
    });
    expect(sources).toMatchObject({
      host: 'default',
      port: 'file',
      tlsPort: 'env',
      registryPort: 'flag',
      data: 'env',
    });
    expect(file).toBe(join(folder.path, 'tomaat.config.yaml'));
    expect(Object.isFrozen(config)).toBe(true);
  });

  it('reports every fault of every layer at once, with its location', () => {
    writeFileSync(join(folder.path, 'tomaat.config.yaml'), 'tls-port: 1\nprot: 2\nhost: ""\n');
    const message = faultsOf({
      env: { TOMAAT_PORT: 'ninety', TOMAAT_LOGIN: 'perhaps' },
      flags: { data: folder.path, registryPort: '70000', allowNet: ['10.0.0.1/99'], tlsCert: 'x.pem' },
    });
    for (const part of [
      '8 settings are wrong',
      'tls-port in',
      'Did you mean tlsPort?',
      'prot in',
      'host in',
      'TOMAAT_PORT: “ninety” must be a port',
      'TOMAAT_LOGIN: “perhaps” must be true or false',
      '--registry-port “70000” must be a port',
      '--allow-net must be a range',
      '--tls-cert and --tls-key belong together',
    ]) {
      expect(message).toContain(part);
    }
  });

  it('accepts only numbers and numeric text as numbers', () => {
    const path = join(folder.path, 'tomaat.config.yaml');
    const flags = { data: folder.path };
    for (const [lines, port, maxVoxels] of [
      ['port: 9100\nmaxVoxels: 1e6\n', 9100, 1e6],
      ['port: "9100"\nmaxVoxels: "1e6"\n', 9100, 1e6],
      ['port: 0\n', 0, 2 ** 30],
    ] as const) {
      writeFileSync(path, lines);
      expect(loadConfig({ env: {}, flags }).config).toMatchObject({ port, maxVoxels });
    }
    for (const value of [
      '',
      'null',
      'true',
      'false',
      '[9000]',
      '""',
      '" "',
      '0x10z',
      '9000.5',
      '.inf',
      '{}',
    ]) {
      writeFileSync(path, `port: ${value}\nworkers: ${value}\n`);
      const message = faultsOf({ env: {}, flags });
      expect(message, value).toMatch(/port in .*must be a port/);
      expect(message, value).toMatch(/workers in .*must be a whole number/);
    }
    writeFileSync(path, '');
    expect(faultsOf({ env: {}, flags: { ...flags, port: '' } })).toContain('must be a port');
  });

  it('keeps the key for announcing apart from that of a client', () => {
    const env = { TOMAAT_DATA: folder.path, TOMAAT_API_KEY: 'tmt_client', TOMAAT_ANNOUNCE_KEY: 'tmt_server' };
    expect(loadConfig({ env }).config.announceKey).toBe('tmt_server');
    expect(loadConfig({ env: { ...env, TOMAAT_ANNOUNCE_KEY: '' } }).config.announceKey).toBeUndefined();
  });

  it('takes a plain public address only, and removes its trailing slash', () => {
    const of = (publicUrl: string) => ({ env: {}, flags: { data: folder.path, publicUrl } });
    expect(loadConfig(of('https://server.example/tomaat/')).config.publicUrl).toBe(
      'https://server.example/tomaat',
    );
    for (const wrong of ['server.example', 'ftp://a', 'https://a/?x=1', 'https://a/#b', 'https://u:p@a'])
      expect(faultsOf(of(wrong)), wrong).toContain('--public-url');
  });

  it('lets the variables be that Kubernetes sets', () => {
    expect(
      loadConfig({ env: { TOMAAT_PORT: 'tcp://10.0.0.1:9000', TOMAAT_DATA: folder.path } }).config.port,
    ).toBe(9000);
  });

  it('a named file that is missing is a fault', () => {
    expect(
      faultsOf({ env: {}, configFile: join(folder.path, 'none.yaml'), flags: { data: folder.path } }),
    ).toContain('There is no configuration file');
  });
});
