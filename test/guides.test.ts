import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseManifest, readVolume, sourceFromBytes, type Volume, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { loadConfig } from '../packages/server/src/config.ts';
import { parseGatewayConfig } from '../packages/server/src/gateway/parse-config.ts';
import { nodePlatform } from '../packages/server/src/node-platform.ts';
import { pointwiseNetwork, thresholdNetwork } from '../packages/server/test/onnx-fixture.ts';
import { startTestServer } from '../packages/server/test/test-server.ts';
import {
  type CodeBlock,
  codeBlocks,
  readText,
  repository,
  type Stand,
  start,
  startStand,
  tryServing,
} from './documents.ts';
import { findCurl, findOpenssl, findProgram, findPython } from './programs.ts';
import { writeSeries } from './write-series.ts';

const guide = (name: string) => codeBlocks(readText(`docs/guides/${name}.md`));
const guides = [
  'publish-your-model',
  'app-in-typescript',
  'run-a-server',
  'scale',
  'operate',
  'graphics-cards',
  'use-from-python',
  'use-from-typescript',
  'dicomweb',
  'ohif',
  'slicer',
  'dicom',
  'pacs',
  'many-scans',
];
const linesOf = (blocks: readonly CodeBlock[]) =>
  blocks.filter((block) => block.language === 'sh').flatMap((block) => block.text.trim().split('\n'));
const noCurl = !findCurl();
const noPython = !findPython('requests');
/** What tomaat-client and its extras need. */
const noClient = !findPython('requests', 'httpx', 'nibabel', 'SimpleITK', 'pandas', 'cryptography');

/** A small scan of a bright ellipsoid off the middle, 2 × 2 × 3 mm. */
async function writeCase(path: string): Promise<void> {
  const size = [31, 28, 16] as const;
  const voxels = new Int16Array(size[0] * size[1] * size[2]);
  for (let z = 0, i = 0; z < size[2]; z++)
    for (let y = 0; y < size[1]; y++)
      for (let x = 0; x < size[0]; x++, i++) {
        const r = ((x - 18) / 7) ** 2 + ((y - 12) / 6) ** 2 + ((z - 9) / 4) ** 2;
        voxels[i] = (r < 1 ? 900 : 100) + ((i * 7919) % 31);
      }
  const affine = [2, 0, 0, -20, 0, 2, 0, 11, 0, 0, 3, -7, 0, 0, 0, 1];
  const volume: Volume = { voxels, size, components: 1, affine };
  const parts: Uint8Array[] = [];
  for await (const part of writeVolume(volume, 'nii.gz', nodePlatform)) parts.push(part);
  writeFileSync(path, Buffer.concat(parts));
}

describe('guides', () => {
  let stand: Stand;
  const inFolder = (...names: string[]) => join(stand.folder, ...names);
  beforeAll(async () => {
    stand = await startStand({ quickNpx: true });
    copyFileSync(join(repository, 'apps/ct-lung/sample.nii.gz'), inFolder('chest.nii.gz'));
    await writeSeries(inFolder('chest.nii.gz'), inFolder('chest'), [1]);
    await writeSeries(inFolder('chest.nii.gz'), inFolder('two'), [1, 5]);
  }, 60_000);
  afterAll(() => stand?.[Symbol.asyncDispose](), 30_000);

  /** Runs a line of a shell and expects that it works; gives what it printed. */
  async function works(line: string): Promise<string> {
    const ended = await stand.shell(line);
    expect(ended.code, `${line}\n${ended.stdout}${ended.stderr}`).toBe(0);
    return ended.stdout;
  }

  describe('publish-your-model.md', () => {
    const blocks = guide('publish-your-model');
    // The packed packages are what the app in TypeScript is tried with: packed-guides.ts.
    const all = linesOf(blocks).filter((line) => !line.startsWith('npm install'));
    const [newLines, patternLines, lines, otherLines] = [
      all.slice(0, 2),
      all.slice(2, 6),
      all.slice(6, -2),
      all.slice(-2),
    ];
    const yaml = blocks.filter((block) => block.language === 'yaml').map((block) => block.text);
    const manifests = yaml.filter((text) => text.startsWith('schemaVersion'));
    const [labels, selftest, ...parts] = yaml.filter((text) => !text.startsWith('schemaVersion'));

    it('every manifest is one, and there is one for each way that is named', () => {
      const ids = manifests.map((text) => parseManifest(text).id);
      expect(ids).toEqual(['prostate', 'liver-triton', 'spleen', 'liver', 'vessels', 'bright']);
    });

    it('every part of a manifest is taken in one', () => {
      const whole = parseYaml(manifests[1]) as Record<string, object>;
      const keys = parts.map((text) => {
        const part = parseYaml(text) as Record<string, object>;
        const channels = Object.keys(part.inputs ?? whole.inputs);
        parseManifest(JSON.stringify({ ...whole, model: { ...whole.model, channels }, ...part }));
        return Object.keys(part).join();
      });
      expect(keys).toEqual([
        'postprocess',
        'inputs',
        'preprocess',
        'inputs,preprocess,model,postprocess,labels',
        'model,postprocess',
      ]);
    });

    it('the codes of a label are taken in a manifest', () => {
      const coded = manifests[0].replace(/^labels:.*\n(?:[ -].*\n)*/m, labels);
      expect(coded).toContain(labels);
      const [label] = parseManifest(coded).labels;
      expect(label.modifier).toEqual({ scheme: 'SCT', value: '7771000', meaning: 'Left' });
    });

    it('init: a network in a file becomes an app that passes the check', async () => {
      writeFileSync(inFolder('spine.onnx'), pointwiseNetwork({ weights: [[0], [1], [2]] }));
      expect(await works(newLines[0])).toBe('my-spine/tomaat.yaml\n');
      expect(await works(newLines[1])).toContain('→ 3 classes');
    });

    it('the brain app: a copy of its folder runs and is served', async () => {
      const [copy, run, hash, serve] = patternLines;
      await works(copy);
      const said = await works(run);
      expect(said).toMatch(/^my-mask\.nii\.gz\n {2}brain +1\d{3}(\.\d+)? ml$/m);
      const [, sha256] = /^([0-9a-f]{64}) /.exec(await works(hash))!;
      expect(readFileSync(inFolder('my-brain', 'tomaat.yaml'), 'utf8')).toContain(`sha256: ${sha256}`);
      expect(await tryServing(serve, stand)).toContain('"services":1');
    });

    it('what the table says of its manifest stands there', () => {
      const manifest = readText('apps/brain/tomaat.yaml');
      const rows = readText('docs/guides/publish-your-model.md').match(/^\| `.*$/gm)!;
      const first = rows.slice(0, rows.findIndex((row) => row.startsWith('| `selftest:`')) + 1);
      expect(first.length).toBeGreaterThan(10);
      for (const row of first)
        for (const [, text] of row.split('|')[1].matchAll(/`([^`]+)`/g)) expect(manifest).toContain(text);
    });

    it.skipIf(noPython)('the export is Python', async () => {
      const [block] = blocks.filter((candidate) => candidate.language === 'python');
      const ended = await stand.python(`compile(${JSON.stringify(block.text)}, 'export.py', 'exec')`);
      expect(ended.stderr).toBe('');
      expect(ended.code).toBe(0);
    });

    it('run: the first manifest and an exported network give a label map', async () => {
      mkdirSync(inFolder('prostate'));
      writeFileSync(inFolder('prostate', 'prostate.onnx'), thresholdNetwork(1));
      const said = await works(lines[0]);
      const [, sha256] = /^([0-9a-f]{64}) /.exec(said)!;
      writeFileSync(
        inFolder('prostate', 'tomaat.yaml'),
        manifests[0].replace(/sha256: (0123456789abcdef){4}/, `sha256: ${sha256}`),
      );
      await writeCase(inFolder('case.nii.gz'));
      expect(lines[1]).toMatch(/^npx tomaat run /);
      expect(await works(lines[1])).toMatch(/^tried\.nii\.gz\n {2}prostate +\d+(\.\d+)? ml$/m);
    });

    it.each([
      ['spleen', 'spleen.onnx', () => thresholdNetwork(0.9)],
      ['liver', 'fold0.onnx', () => pointwiseNetwork({ weights: [[0], [1], [1]], bias: [0, -1.5, -9] })],
    ] as const)('run: the manifest of %s with a network of as many classes', async (id, file, network) => {
      const manifest = manifests.find((text) => parseManifest(text).id === id)!;
      const weights = network();
      const sha256 = createHash('sha256').update(weights).digest('hex');
      mkdirSync(inFolder(id));
      writeFileSync(inFolder(id, file), weights);
      writeFileSync(
        inFolder(id, 'tomaat.yaml'),
        manifest.replaceAll(/sha256: (0123456789abcdef){4}/g, `sha256: ${sha256}`),
      );
      await writeCase(inFolder('ct.nii.gz'));
      const line = otherLines.find((candidate) => candidate.startsWith(`npx tomaat run ${id} `))!;
      expect(await works(line)).toMatch(
        new RegExp(`^${id}\\.nii\\.gz(\n {2}${id} +\\d+(\\.\\d+)? ml)?$`, 'm'),
      );
    });

    it.skipIf(!findPython('json'))('the program that stays loaded predicts, and refuses', async () => {
      const folder = inFolder('vessels');
      mkdirSync(folder);
      const text = readText('docs/guides/publish-your-model.md');
      const [model] = /model: \{ runtime: command,.* serve: true \}/.exec(text)!;
      const manifest = manifests.find((candidate) => parseManifest(candidate).id === 'vessels')!;
      const kept = manifest.replace(/^model: .*$/m, model.replace('python3', findPython('json')!));
      expect(kept).toContain('serve: true');
      writeFileSync(join(folder, 'tomaat.yaml'), kept);
      const [, loop] = blocks.filter((block) => block.language === 'python');
      writeFileSync(join(folder, 'app.py'), loop.text);
      await writeCase(inFolder('vessels.nii.gz'));
      const project = `import shutil
class Refused(Exception): pass
def load_model(): return "a model"
def segment(model, source, target, parameters):
    print("prints to stdout")
    if parameters["sensitivity"] == 0: raise Refused("Nothing can be found.")
    if parameters["sensitivity"] == 1: raise KeyError("no such key")
    shutil.copy(source, target)
`;
      writeFileSync(join(folder, 'my_project.py'), project);
      const run = 'npx tomaat run vessels --volume vessels.nii.gz -o found.nii.gz --force';
      expect(await works(run)).toMatch(/^found\.nii\.gz$/m);
      const refused = await stand.shell(`${run} --param sensitivity=0`);
      expect(refused.stderr).toContain('Nothing can be found.');
      const failed = await stand.shell(`${run} --param sensitivity=1`);
      expect(failed.stderr).toContain("The app’s program failed: KeyError('no such key')");
    });

    it('check: the self-test as it is described passes', async () => {
      for (const line of lines.slice(2, 4)) {
        expect(line).toMatch(/^cp /);
        await works(line);
      }
      const file = inFolder('prostate', 'tomaat.yaml');
      writeFileSync(file, `${readFileSync(file, 'utf8')}\n${selftest}`);
      expect(lines[4]).toMatch(/^npx tomaat check /);
      const said = await works(lines[4]);
      for (const name of ['manifest and weights', 'self-test', 'geometry'])
        expect(said).toMatch(new RegExp(`^ {2}ok {4,}${name}: `, 'm'));
    });

    it('serve and announce: a registry lists it', async () => {
      const [serve, keys, announce, ...more] = lines.slice(5);
      expect(more).toEqual([]);
      expect(await tryServing(serve, stand)).toContain('"services":1');
      const key = (await works(keys)).trim();
      expect(key).toMatch(/^tmt_/);
      await tryServing(announce.replace('tmt_…', key), stand, async (url) => {
        await expect
          .poll(async () => works('npx tomaat discover --anatomy prostate'), {
            timeout: 20_000,
            interval: 500,
          })
          .toContain(`${url}/services/prostate`);
      });
    });
  });

  describe('run-a-server.md', () => {
    const blocks = guide('run-a-server');

    const isPrometheus = ({ text }: CodeBlock) => text.startsWith('# prometheus.yml');
    it('the settings are settings', () => {
      const [first, second, third, ...more] = blocks
        .filter((block) => block.language === 'yaml' && !isPrometheus(block))
        .map(({ text }, number) => {
          const configFile = inFolder(`settings-${number}.yaml`);
          writeFileSync(configFile, text);
          return loadConfig({ configFile, flags: { data: stand.data }, env: {} });
        });
      expect(more).toEqual([]);
      expect(first.config.workers).toBe(2);
      expect(first.sources.announce).toBe('file');
      expect(second.config.oidcAdmin).toEqual(['email=boss@hospital.example']);
      expect(third.config.modelServerKeys).toEqual(['triton.hospital.example:8001=KEY']);
    });

    it('the scrape configuration gets the metrics, with the key that the guide makes', async () => {
      const { scrape_configs: jobs } = parseYaml(blocks.find(isPrometheus)!.text) as {
        scrape_configs: Record<string, unknown>[];
      };
      expect(jobs).toHaveLength(1);
      const { scheme, authorization, static_configs: targets, tls_config: tls } = jobs[0];
      expect({ scheme, targets, tls }).toEqual({
        scheme: 'https',
        targets: [{ targets: ['server.example:9443'] }],
        tls: { ca_file: '/etc/prometheus/tomaat.pem' },
      });
      const make = lines.find((line) => line.includes('--label prometheus'))!;
      const data = inFolder('scraped');
      const key = (await works(make.replace('--data my-data', `--data ${data}`))).trim();
      await tryServing(`npx tomaat serve apps/threshold --login --data ${data}`, stand, async (url) => {
        const { type } = authorization as { type: string };
        const scraped = await fetch(`${url}/metrics`, { headers: { authorization: `${type} ${key}` } });
        expect(scraped.status).toBe(200);
        expect(await scraped.text()).toContain('# TYPE tomaat_jobs gauge');
        expect((await fetch(`${url}/metrics`)).status).toBe(401);
      });
    });

    const lines = linesOf(blocks);
    it.each(lines.filter((line) => line.startsWith('npx ')))('%s', async (line) => {
      if (/^npx tomaat serve /.test(line))
        expect(await tryServing(line, stand)).toContain(`"services":${line.split(' apps/').length - 1}`);
      else await works(line);
    });
    it.skipIf(noCurl).each(lines.filter((line) => !line.startsWith('npx ')))('%s', async (line) => {
      expect(line).toMatch(/^curl /);
      await works(line);
    });
  });

  describe('operate.md', () => {
    const blocks = guide('operate');
    const lines = linesOf(blocks);
    const data = 'my-data';
    beforeAll(async () => {
      // A data folder with a job in it, as one has who reads this.
      await tryServing(`npx tomaat serve apps/ct-lung --data ${data}`, stand, async (url) => {
        const sent = await fetch(`${url}/api/services/ct-lung/predictions`, {
          method: 'POST',
          headers: { 'content-type': 'application/octet-stream', prefer: 'wait=60' },
          body: readFileSync(inFolder('chest.nii.gz')),
        });
        expect(sent.status, await sent.text()).toBe(200);
      });
    }, 120_000);

    it('has a line for each command about the data folder', () => {
      const words = lines.map((line) => line.split(' ')[2]);
      expect(new Set(words)).toEqual(
        new Set(['backup', 'restore', 'check', 'keys', 'serve', 'audit', 'erase']),
      );
      for (const line of lines) expect(line).toMatch(/^npx tomaat /);
    });

    it.each(lines)('%s', async (line) => {
      if (/^npx tomaat serve /.test(line)) expect(await tryServing(line, stand)).toContain('"services":1');
      else await works(line);
      if (/ restore /.test(line)) expect(existsSync(inFolder('restored-data', 'blobs', 'sha256'))).toBe(true);
    });

    const logrotate = findProgram('logrotate', ['--version']);
    it.skipIf(!logrotate)('the configuration of logrotate is one, and it would rotate the log', () => {
      const block = blocks.find(({ text }) => text.includes('postrotate'))!;
      const user = process.getuid?.() === 0 ? 'root root' : `${process.getuid?.()} ${process.getgid?.()}`;
      const file = inFolder('logrotate.conf');
      const text = block.text
        .replace('/var/lib/tomaat', inFolder(data))
        .replace('su tomaat tomaat', process.getuid?.() === 0 ? `su ${user}` : '');
      writeFileSync(file, text, { mode: 0o600 });
      const state = ['--state', inFolder('logrotate.state')];
      const ended = spawnSync(logrotate!, ['--debug', '--force', ...state, file], { encoding: 'utf8' });
      expect(ended.stderr).not.toContain('error');
      expect(ended.stderr).toContain(
        `renaming ${inFolder(data)}/audit.jsonl to ${inFolder(data)}/audit.jsonl.1`,
      );
      expect(ended.stderr).toContain('running postrotate script');
    });
  });

  describe.skipIf(noClient)('use-from-python.md', () => {
    const blocks = guide('use-from-python');
    it('has Python only', () => {
      expect(new Set(blocks.map((block) => block.language))).toEqual(new Set(['python']));
      expect(blocks.length).toBeGreaterThan(4);
    });
    it.each(blocks.map((block) => [block.line, block] as const))(
      'the lines from %i on work',
      async (_line, block) => {
        const ended = await stand.python(block.text);
        expect(ended.stderr).toBe('');
        expect(ended.code, ended.stdout).toBe(0);
      },
    );

    it('the cells of the notebook give a table of volumes and a label map', async () => {
      mkdirSync(inFolder('scans'));
      for (const name of ['a', 'b'])
        copyFileSync(inFolder('chest.nii.gz'), inFolder('scans', `${name}.nii.gz`));
      writeFileSync(inFolder('scans', 'broken.nii.gz'), 'nothing');
      const { cells } = JSON.parse(readText('examples/python/volumes.ipynb')) as {
        cells: { cell_type: string; source: string[] }[];
      };
      const code = cells.filter((cell) => cell.cell_type === 'code').map((cell) => cell.source.join(''));
      expect(code).toHaveLength(2);
      expect(code[0].trim().split('\n').length).toBeLessThanOrEqual(8);
      const ended = await stand.python(`${code[0]}
assert list(table.columns[-1:]) == ["error"] and list(table["error"].isna()) == [True, True, False], table
assert (table.iloc[:2, :-1].to_numpy() > 100).all(), table
${code[1]}`);
      expect(ended.stderr).toBe('');
      expect(ended.code).toBe(0);
      expect(ended.stdout).toMatch(/^\{'.*': \d+\.\d+.*\}$/m);
      expect(readFileSync(inFolder('lungs.nii.gz')).length).toBeGreaterThan(352);
    });
  });

  describe('slicer.md', () => {
    const blocks = guide('slicer');
    it('the addresses that are entered are some: MONAI Label and Auto3DSeg answer, and an interface over HTTPS', async () => {
      const [face, models, address] = blocks.filter((block) => block.language === 'text');
      const faces = ['monailabel', 'auto3dseg'] as const;
      await using server = await startTestServer(['threshold'], { faces, workers: 0 });
      const info = await fetch(`${server.url}${new URL(face.text.trim()).pathname}/info/`);
      expect(await info.json()).toMatchObject({ name: 'TOMAAT' });
      const listed = await fetch(`${server.url}${new URL(models.text.trim()).pathname}/models`);
      expect(await listed.json()).toMatchObject([{ id: 'threshold' }]);
      const url = stand.localize(address.text.trim());
      expect(url).toMatch(/^https:.*\/predict$/);
      const path = new URL(url).pathname.replace(/predict$/, 'interface');
      const response = await fetch(stand.server + path);
      expect(response.status).toBe(200);
      expect(await response.json()).toContainEqual(expect.objectContaining({ type: 'volume' }));
    });
    const lines = linesOf(blocks);
    const isCurl = (line: string) => line.startsWith('curl');
    it.skipIf(noCurl).each(lines.filter(isCurl))('%s', async (line) => {
      expect(await works(line)).toContain('prediction_url');
    });
    it.each(lines.filter((line) => !isCurl(line)))('%s', async (line) => {
      await works(line);
      const [name] = /lungs\.\S+/.exec(line)!;
      const [scan, lungs] = await Promise.all(
        ['chest.nii.gz', name].map(async (file) => {
          const source = sourceFromBytes(file, readFileSync(inFolder(file)));
          return (await readVolume([source], nodePlatform)).volume;
        }),
      );
      expect(lungs.size).toEqual(scan.size);
      for (const [i, number] of lungs.affine.entries()) expect(number).toBeCloseTo(scan.affine[i], 3);
      expect(new Set<number | bigint>(lungs.voxels as Uint8Array).size).toBeGreaterThan(1);
    });
    it('the table of ways has each address that is entered, and a section for each way', () => {
      const text = readText('docs/guides/slicer.md');
      const rows = text.split('\n').filter((line) => line.startsWith('| ['));
      expect(rows).toHaveLength(4);
      const entered = blocks.filter((block) => block.language === 'text').map((block) => block.text.trim());
      expect(rows.flatMap((row) => row.match(/(?<=`)http[^`]+/) ?? [])).toEqual(entered);
    });
  });

  describe('ohif.md', () => {
    it('the settings are some, and OHIF finds the models at the address that is entered', async () => {
      const [settings, address] = guide('ohif');
      const configFile = inFolder('ohif.yaml');
      writeFileSync(configFile, settings.text);
      const { config } = loadConfig({ configFile, env: {} });
      expect(config.dicomweb).toBe('https://pacs.example/dicom-web');
      await using server = await startTestServer(['threshold'], { faces: config.faces, workers: 0 });
      // As OHIF resolves it.
      const { pathname } = new URL('info/', address.text.trim());
      expect(await (await fetch(server.url + pathname)).json()).toMatchObject({ models: { threshold: {} } });
    });
  });

  describe('dicom.md', () => {
    const blocks = guide('dicom');
    const python = blocks.filter((block) => block.language === 'python');
    it.skipIf(noPython)('every program in Python does what it says', async () => {
      expect(python).toHaveLength(3);
      const [form, zip, choice] = python.map(({ text }) => text);
      for (const [i, text] of [form, zip, choice, choice.replaceAll('chest', 'two')].entries()) {
        const ended = await stand.python(text);
        expect(ended.code, ended.stderr).toBe(0);
        if (i < 2) continue;
        // A series of that number is in neither folder, and there are two in the second.
        expect(ended.stdout).toMatch(/No series has that UID or number/);
        expect(ended.stdout.trim().split('\n').slice(1)).toHaveLength(i - 1);
      }
      const segmentation = readFileSync(inFolder('lungs.seg.dcm'));
      expect(segmentation.toString('latin1', 128, 132)).toBe('DICM');
      expect(readFileSync(inFolder('lungs.nii.gz')).length).toBeGreaterThan(352);
    });
    it.skipIf(noCurl || !findProgram('zip', ['-v'])).each(linesOf(blocks))('%s', async (line) => {
      await works(line);
    });
  });

  describe('pacs.md', () => {
    const blocks = guide('pacs');
    const [small, whole] = blocks.filter((block) => block.language === 'yaml').map(({ text }) => text);
    const lines = linesOf(blocks);
    const isStart = (line: string) => line.startsWith('npx tomaat gateway --config');

    it('two folders: a series becomes a segmentation of its patient and study', async () => {
      writeFileSync(inFolder('gateway.yaml'), stand.localize(small));
      await writeSeries(inFolder('chest.nii.gz'), inFolder('ct'), [1]);
      const modality = (value: string) => `\x08\0\x60\0CS\x02\0${value}`;
      for (const name of readdirSync(inFolder('ct'))) {
        const text = readFileSync(inFolder('ct', name), 'latin1');
        writeFileSync(inFolder('ct', name), text.replace(modality('MR'), modality('CT')), 'latin1');
      }
      const [mkdir, check, serve, copy, list] = lines;
      await works(mkdir);
      const checked = await works(check);
      for (const part of ['source inbox', 'rule ct-lungs', 'destination results'])
        expect(checked).toMatch(new RegExp(`^ {2}ok {5}${part}: `, 'm'));
      expect(isStart(serve)).toBe(true);
      const command = `${serve.replace('npx', 'exec npx')} --port 0`;
      await using gateway = start('sh', ['-ec', command], {
        cwd: stand.folder,
        env: { PATH: stand.path },
      });
      await gateway.until(/^Gateway +http:/m);
      await works(copy);
      await expect
        .poll(() => works(list), { timeout: 60_000, interval: 1000 })
        .toMatch(/^\d+ +done +ct-lungs +inbox +CT +\d+ .*seg\.dcm$/m);
      const found = readdirSync(inFolder('results'), { recursive: true, encoding: 'utf8' });
      const [segmentation] = found.filter((name) => name.endsWith('.dcm'));
      expect(readFileSync(inFolder('results', segmentation)).toString('latin1', 128, 132)).toBe('DICM');
      expect(segmentation).toMatch(/^1\.2\.3\//);
    }, 120_000);

    const noOpenssl = !findOpenssl();
    it.skipIf(noOpenssl).each(lines.slice(5))('%s', async (line) => {
      await works(line);
    });

    it.skipIf(noOpenssl)(
      'the file for a hospital has no faults with the secrets that the guide makes',
      () => {
        for (const name of ['orthanc.password', 'archive.token', 'lungs.key'])
          writeFileSync(inFolder(name), 'a-secret\n', { mode: 0o600 });
        const { config, warnings } = parseGatewayConfig(whole, inFolder('gateway.yaml'));
        expect(warnings).toEqual([]);
        expect(config.rules.map(({ when }) => when.sources)).toEqual([['door'], ['archive']]);
        const { Tomaat: door } = JSON.parse(
          readText('deploy/orthanc/orthanc.json').replaceAll(/^ *\/\/.*$/gm, ''),
        ) as { Tomaat: { Hook: string } };
        expect(new URL(door.Hook).pathname).toBe('/hooks/orthanc/door');
      },
    );

    it('the unit of systemd stops the gateway alone, and names flags that it has', () => {
      const unit = blocks.find((block) => block.language === 'ini')!.text;
      expect(unit).toMatch(/^KillMode=mixed$/m);
      expect(unit).toMatch(/^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
      expect(unit).not.toContain('npx');
    });
  });

  describe('many-scans.md', () => {
    const blocks = guide('many-scans');
    const [copy, batch, piped] = linesOf(blocks);

    it('the batch writes results and a table, and a second start computes nothing', async () => {
      await works(copy);
      expect(await works(batch)).toMatch(/^\[2\/2\] .* → cohort-results\//m);
      expect(existsSync(inFolder('cohort-results', 'second', 'p2_segmentation.nii.gz'))).toBe(true);
      expect((await works(batch)).match(/is current, skipped/g)).toHaveLength(2);
      await works(piped);
      const first = readFileSync(inFolder('lungs-piped.nii.gz'));
      expect(first.subarray(0, 2)).toEqual(Buffer.from([0x1f, 0x8b]));
    });

    it.skipIf(noClient)('pandas reads the table', async () => {
      const [{ text }] = blocks.filter((block) => block.language === 'python');
      const ended = await stand.python(text);
      expect(ended.code, ended.stderr).toBe(0);
      expect(ended.stdout).toMatch(/^p1 +\d/m);
      expect(ended.stdout).toMatch(/^second\/p2 +\d/m);
    });
  });

  it('no page names a flag or an npm script that does not exist', () => {
    const known = readText('docs/reference/cli.md');
    const { scripts } = JSON.parse(readText('package.json')) as { scripts: Record<string, string> };
    const pages = ['README.md', 'CONTRIBUTING.md', 'ARCHITECTURE.md', 'SECURITY.md', 'CHANGELOG.md'];
    for (const page of [...pages, ...guides.map((name) => `docs/guides/${name}.md`)]) {
      const text = readText(page);
      for (const line of text.split('\n').filter((candidate) => /\btomaat /.test(candidate))) {
        const command = line.slice(line.lastIndexOf('tomaat '));
        for (const [flag] of command.matchAll(/(?<=\s)--[a-z][a-z-]+/g))
          expect(known, `${page}: ${line}`).toContain(flag);
      }
      for (const [, name] of text.matchAll(/\bnpm run ([a-z]+)/g))
        expect(scripts, `${page}: npm run ${name}`).toHaveProperty(name);
    }
  });
});
