import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, parseAllDocuments, stringify } from 'yaml';
import { addServe } from '../packages/server/src/cli/commands/serve.ts';
import { addWorker } from '../packages/server/src/cli/commands/worker.ts';
import { settings } from '../packages/server/src/settings.ts';
import { readText, repository } from './documents.ts';
import { findCaddy, findKubectl, findProgram } from './programs.ts';

/* The files under deploy/ for systemd, Kubernetes and containers, checked by the programs that read them. deploy/slurm: slurm.test.ts. */

const analyze = findProgram('systemd-analyze', ['--version']);
const kubectl = findKubectl();
const validate = findProgram('kubernetes-validate', ['--version']);
const caddy = findCaddy();

const folder = mkdtempSync(join(tmpdir(), 'tomaat-deploy-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What these arguments mean to `tomaat`. Throws where it would refuse them. */
function understand(args: readonly string[]): Record<string, unknown> {
  const program = new Command().exitOverride().configureOutput({ writeErr: () => {} });
  addServe(program);
  addWorker(program);
  let found: Record<string, unknown> = {};
  for (const command of program.commands)
    command
      .exitOverride()
      .configureOutput({ writeErr: () => {} })
      .action(() => {
        found = command.opts();
      });
  program.parse(args, { from: 'user' });
  return found;
}

describe('deploy/systemd', () => {
  const names = ['tomaat.service', 'tomaat-worker@.service'];
  const units = names.map((name) => readText(`deploy/systemd/${name}`));

  /** The complaints of systemd about a unit, whose program is one that is here. */
  function complaints(name: string, text: string): string {
    const file = join(folder, name);
    writeFileSync(file, text.replaceAll('/opt/tomaat/bin/tomaat', '/bin/true'));
    const { status, stderr } = spawnSync(analyze!, ['verify', '--man=no', file], { encoding: 'utf8' });
    return stderr.trim() || (status === 0 ? '' : `exit code ${status}`);
  }
  it.skipIf(!analyze)('systemd finds no fault in the units, and finds planted ones', () => {
    for (const [i, name] of names.entries()) expect(complaints(name, units[i])).toBe('');
    const planted: [RegExp, string][] = [
      [/^KillMode=mixed$/m, 'KilMode=mixed'],
      [/^ProtectSystem=strict$/m, 'ProtectSystem=strikt'],
      [/^TimeoutStopSec=\d+$/m, 'TimeoutStopSec=soon'],
      [/^OOMPolicy=continue$/m, 'OOMPolicy=go-on'],
    ];
    for (const [right, wrong] of planted) {
      expect(units[0]).toMatch(right);
      expect(complaints(names[0], units[0].replace(right, wrong))).not.toBe('');
    }
  });

  it('they signal the program alone, and wait longer than it drains', () => {
    for (const unit of units) {
      expect(unit).toMatch(/^KillMode=mixed$/m);
      expect(unit).toMatch(/^ExecReload=\/bin\/kill -HUP \$MAINPID$/m);
      expect(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)![1])).toBeGreaterThan(settings.drainSeconds.default);
      const [, line] = /^ExecStart=\/opt\/tomaat\/bin\/tomaat (.+)$/m.exec(unit)!;
      understand(line.split(' '));
    }
  });
});

interface Manifest {
  kind: string;
  metadata: { name: string };
  spec: Record<string, unknown>;
}

describe.skipIf(!kubectl)('deploy/kubernetes', () => {
  const build = (name: string): Manifest[] => {
    const from = join(repository, 'deploy/kubernetes', name);
    const { stdout, stderr } = spawnSync(kubectl!, ['kustomize', from], { encoding: 'utf8' });
    expect(stderr).toBe('');
    return parseAllDocuments(stdout).map((document) => document.toJS() as Manifest);
  };
  let all: Manifest[];
  let known: string[];
  /** The Jobs that KEDA makes of a ScaledJob, as Kubernetes sees them. */
  const asJob = ({ metadata, spec }: Manifest) => ({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: metadata.name },
    spec: spec.jobTargetRef,
  });
  beforeAll(() => {
    all = ['server', 'replicas', 'worker', 'gpu'].flatMap(build);
    known = all
      .filter(({ kind }) => kind !== 'TriggerAuthentication')
      .map((manifest) => (manifest.kind === 'ScaledJob' ? asJob(manifest) : manifest))
      .map((manifest) => stringify(manifest));
  });

  const write = (name: string, text: string) => {
    const file = join(folder, name);
    writeFileSync(file, text);
    return file;
  };

  it.skipIf(!validate)('Kubernetes knows every field, and refuses planted misspellings', () => {
    const check = (files: readonly string[]) =>
      spawnSync(validate!, ['--strict', ...files], { encoding: 'utf8' });
    const good = check(known.map((text, i) => write(`good-${i}.yaml`, text)));
    expect(good.status, good.stdout + good.stderr).toBe(0);
    const planted: [string, string][] = [
      ['readinessProbe:', 'redinessProbe:'],
      ['containerPort: 9443', 'containerPort: abc'],
      ['readOnlyRootFilesystem:', 'readOnlyRootFileSystem:'],
      ['claimName:', 'claim:'],
      ['minAvailable:', 'minAvailible:'],
      ['policyTypes:', 'policyType:'],
      ['targetPort:', 'targetport:'],
      ['accessModes:', 'accessMode:'],
      ['backoffLimit:', 'backofLimit:'],
      ['secretKeyRef:', 'secretKeyref:'],
      ['ttlSecondsAfterFinished: 600', 'ttlSecondsAfterFinished: soon'],
      ['tolerations:', 'toleration:'],
    ];
    const files = planted.map(([right, wrong], i) => {
      const text = known.find((one) => one.includes(right));
      expect(text, right).toBeDefined();
      return write(`planted-${i}.yaml`, text!.replace(right, wrong));
    });
    const { stdout, stderr } = check(files);
    const refused = files.map((file) => (stdout + stderr).includes(`ERROR ${file}`));
    expect(planted.filter((_, i) => !refused[i])).toEqual([]);
  });

  it('the programs get arguments that they have, and time to drain', () => {
    const pods = all
      .map(
        ({ kind, spec }) => (kind === 'ScaledJob' ? spec.jobTargetRef : spec) as { template?: { spec: Pod } },
      )
      .flatMap(({ template }) => (template ? [template.spec] : []));
    expect(pods).toHaveLength(4);
    for (const pod of pods) {
      expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(settings.drainSeconds.default + 10);
      const flags = understand(pod.containers[0].args);
      expect(flags.workers === '0' || flags.idleExit === 120).toBe(true);
    }
  });

  it('replicas share a volume, and are replaced one after the other', () => {
    const [claim] = build('replicas').filter(({ kind }) => kind === 'PersistentVolumeClaim');
    expect(claim.spec.accessModes).toEqual(['ReadWriteMany']);
    const [{ spec }] = build('replicas').filter(({ kind }) => kind === 'Deployment');
    expect(spec).toMatchObject({ replicas: 2, strategy: { rollingUpdate: { maxUnavailable: 0 } } });
    const { volumes, initContainers, containers } = (spec.template as { spec: Replica }).spec;
    expect(volumes.find(({ name }) => name === 'data')).toEqual({
      name: 'data',
      emptyDir: expect.anything(),
    });
    expect(initContainers[0].image).toBe(containers[0].image);
    const database = containers[0].env.find(({ name }) => name === 'TOMAAT_DATABASE');
    expect(database?.valueFrom.secretKeyRef).toEqual({ name: 'tomaat-database', key: 'url' });
  });

  it('KEDA reads the metric of the service whose workers it starts', () => {
    for (const { spec } of all.filter(({ kind }) => kind === 'ScaledJob')) {
      const triggers = spec.triggers as { metadata: { valueLocation: string } }[];
      expect(triggers.map(({ metadata }) => metadata.valueLocation)).toEqual(
        ['queued', 'running'].map((state) => `tomaat_service_jobs{service="prostate",state="${state}"}`),
      );
    }
  });
});

interface Pod {
  terminationGracePeriodSeconds: number;
  containers: { args: string[] }[];
}

interface Replica {
  volumes: { name: string }[];
  initContainers: { image: string }[];
  containers: { image: string; env: { name: string; valueFrom: { secretKeyRef: unknown } }[] }[];
}

describe('deploy/container', () => {
  it('the programs of compose.yaml get arguments that they have', () => {
    const { services } = parse(readText('deploy/container/compose.yaml'));
    expect(understand(services.tomaat.command).login).toBe(true);
    expect(understand(services.worker.command).workers).toBe(1);
    const [name] = services.tomaat.networks.default.aliases;
    expect(services.worker.command[1]).toBe(`https://${name}`);
  });

  it('the servers of compose.replicas.yaml share database, files and keys, and have their own folders', () => {
    const file = parse(readText('deploy/container/compose.replicas.yaml'), { merge: true });
    const { one, two, keys, postgres, caddy, worker } = file.services as Record<string, Service>;
    expect(understand(worker.command).workers).toBe(1);
    // The worker reaches the proxy by the name in its certificate.
    expect(caddy.networks.default.aliases.map((name) => `https://${name}`)).toEqual([worker.command[1]]);
    const script = keys.command.join('\n');
    for (const [name, server] of Object.entries({ one, two })) {
      const { command, environment, volumes, depends_on: after } = server;
      expect(understand(command)).toMatchObject({ login: true, blobs: '/volumes' });
      expect(environment.TOMAAT_DATABASE).toBe('/data/database');
      // A secret keeps the owner that it has outside: the servers read a copy of their own.
      expect(server.secrets).toBeUndefined();
      expect(volumes).toEqual([`${name}:/data`, 'volumes:/volumes']);
      expect(keys.volumes).toContain(`${name}:/${name}`);
      expect(Object.keys(after)).toEqual(['postgres', 'keys']);
    }
    for (const secret of keys.secrets) expect(script).toContain(`/run/secrets/${secret} `);
    const used = [keys, postgres].flatMap(({ secrets }) => secrets);
    expect(new Set(used)).toEqual(new Set(Object.keys(file.secrets)));
    const made = readText('deploy/container/README.md').matchAll(/(?:>|-out )(secrets\/\S+)$/gm);
    const read = Object.values<{ file: string }>(file.secrets).map((secret) => secret.file);
    expect(Array.from(made, ([, name]) => name).toSorted()).toEqual(read.toSorted());
    // No password is in the file, and nothing may become root again.
    for (const { privileged, cap_drop: dropped } of [one, two, keys, worker]) {
      expect(privileged).toBeUndefined();
      expect(dropped).toEqual(['ALL']);
    }
  });

  it.skipIf(!caddy)('Caddy takes its file, and not one with a planted fault', () => {
    const text = readText('deploy/container/Caddyfile');
    const validated = (content: string) => {
      const at = join(folder, 'Caddyfile');
      writeFileSync(at, content);
      return spawnSync(caddy!, ['validate', '--config', at, '--adapter', 'caddyfile'], {
        encoding: 'utf8',
        env: { ...process.env, HOME: folder, TOMAAT_NAME: 'tomaat.example' },
      });
    };
    const valid = validated(text);
    expect(valid.status, valid.stderr).toBe(0);
    for (const [right, wrong] of [
      ['health_uri', 'health_url'],
      ['round_robin', 'round-robin'],
      ['lb_try_duration 5s', 'lb_try_duration soon'],
    ]) {
      expect(text).toContain(right);
      expect(validated(text.replace(right, wrong)).status, wrong).not.toBe(0);
    }
  });
});

interface Service {
  command: string[];
  environment: Record<string, string>;
  volumes: string[];
  secrets: string[];
  depends_on: object;
  privileged?: boolean;
  cap_drop: string[];
  networks: { default: { aliases: string[] } };
}
