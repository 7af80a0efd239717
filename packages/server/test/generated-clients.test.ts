import { execFile } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findProgram, findPython } from '../../../test/programs.ts';
import { encode, phantom } from './phantom.ts';
import { createCleanup, openTestRegistry } from './registry-helpers.ts';
import { repository, startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

/* What generators make of our OpenAPI documents: clients that work. */

const run = promisify(execFile);
const python = findPython('openapi_python_client', 'httpx');
const typescript = findProgram('openapi-typescript', ['--version']);

describe('a client that is generated from /api/openapi.json', () => {
  const cleanup = createCleanup();
  let folder: string;
  let server: TestServer;
  /** The documents of a server and of a registry. */
  const documents: Record<string, string> = {};

  beforeAll(async () => {
    folder = await temporaryFolder();
    server = await startTestServer(['threshold']);
    const registry = await openTestRegistry(cleanup);
    for (const [name, app] of [
      ['server', server.app],
      ['registry', registry.app],
    ] as const) {
      documents[name] = join(folder, `${name}.json`);
      await writeFile(documents[name], (await app.inject('/api/openapi.json')).body);
    }
    await writeFile(join(folder, 'scan.nii.gz'), await encode(phantom(), 'nii.gz'));
  });
  afterAll(async () => {
    await cleanup.run();
    await server?.[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  it.skipIf(!python)('by openapi-python-client sends a file and a parameter, and reads the job', async () => {
    for (const [name, path] of Object.entries(documents)) {
      const args = ['-m', 'openapi_python_client', 'generate', '--path', path, '--meta', 'none'];
      const { stdout, stderr } = await run(python!, [
        ...args,
        '--output-path',
        join(folder, `${name}_client`),
      ]);
      const warnings = [...`${stdout}${stderr}`.matchAll(/^WARNING parsing (.+?) within/gm)].map(
        (match) => match[1],
      );
      // Types of the standards of tus and JOSE, of images and of YAML, which it does not know.
      const known = [
        'PATCH /api/uploads/{id}',
        'GET /api/jobs/{id}/receipt',
        'GET /api/services/{id}/picture',
        'GET /api/services/{id}/manifest',
      ];
      expect(warnings.filter((warning) => !known.includes(warning))).toEqual([]);
    }
    const script = `
from io import BytesIO
from server_client import Client
from server_client.api.jobs import create_prediction, get_job
from server_client.api.services import fit, list_services
from server_client.models import CreatePredictionFilesBody, FitBody
from server_client.types import File
client = Client(base_url="${server.url}")
print([service.id for service in list_services.sync(client=client).services])
with open("scan.nii.gz", "rb") as f:
    body = CreatePredictionFilesBody(volume=File(payload=BytesIO(f.read()), file_name="scan.nii.gz"))
body["factor"] = "1.5"
answer = create_prediction.sync_detailed("threshold", client=client, body=body, prefer="wait=60", idempotency_key="a-key")
job = answer.parsed
print(answer.status_code, job.state, job.parameters.additional_properties, [output.name for output in job.outputs])
print(get_job.sync(job.id, client=client).state, type(job).__name__)
facts = FitBody.from_dict({"inputs": {"volume": {"size": [64, 64, 32], "spacing": [1.0, 1.0, 2.5]}}})
print(fit.sync("threshold", client=client, body=facts).verdict)
`;
    const { stdout } = await run(python!, ['-c', script], { cwd: folder });
    expect(stdout.trim().split('\n')).toEqual([
      "['threshold']",
      expect.stringMatching(
        /^(HTTPStatus\.OK|200) succeeded \{'factor': 1\.5\} \['segmentation', 'report', 'volumes'\]$/,
      ),
      'succeeded SucceededJob',
      'fits',
    ]);
  });

  it.skipIf(!typescript)('by openapi-typescript names the fields of the form, and compiles', async () => {
    const types = join(folder, 'types');
    await mkdir(types);
    for (const [name, path] of Object.entries(documents))
      await run(typescript!, [path, '-o', join(types, `${name}.ts`)]);
    await writeFile(
      join(types, 'use.ts'),
      `import type { components, paths } from './server.ts';
type Post = paths['/api/services/{id}/predictions']['post'];
export const form: Post['requestBody']['content']['multipart/form-data'] = { volume: 'bytes', factor: '1.5' };
export const raw: Post['requestBody']['content']['application/octet-stream'] = 'bytes';
export const key: NonNullable<Post['parameters']['header']>['Idempotency-Key'] = 'a-key';
export const size: paths['/api/services/{id}/fit']['post']['requestBody']['content']['application/json'] = {
  inputs: { volume: { size: [64, 64, 32], components: 1, frames: 1 } },
};
export const location = (headers: Post['responses'][202]['headers']) => headers.Location;
type Job = components['schemas']['Job'];
export const faultOf = (job: Job): string | undefined => (job.state === 'failed' ? job.error.detail : undefined);
// @ts-expect-error: a job that succeeded has no error
export const noFault = (job: Job) => (job.state === 'succeeded' ? job.error : undefined);
// @ts-expect-error: a file is no number
export const wrong: Post['requestBody']['content']['multipart/form-data'] = { volume: 1 };
// @ts-expect-error: another version than 1.0.0
export const tus: paths['/api/uploads']['post']['parameters']['header']['Tus-Resumable'] = '0.2.0';
`,
    );
    const options = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2023'];
    const files = ['use.ts', 'registry.ts'].map((name) => join(types, name));
    const compiler = join(repository, 'node_modules/.bin/tsc');
    const { stdout } = await run(compiler, [...options, '--allowImportingTsExtensions', ...files], {
      cwd: types,
    });
    expect(stdout).toBe('');
  });
});
