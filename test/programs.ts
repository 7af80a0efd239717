import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

/**
 * The programs that tests need and the project does not install. A test whose program is missing skips; with
 * REQUIRE_ALL, as in CI, it fails instead. Only the PATH decides, so that a run on a machine that has none of them
 * can be tried anywhere: `PATH=/only/node npm test`.
 */

/** Every executable of that name on the PATH, in its order. */
function onPath(name: string): string[] {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .filter((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

const reported = new Set<string>();

/** Not on the output, which is of the program that asks. */
function reportSkip(what: string): void {
  if (!reported.has(what))
    console.error(`Skipped: the tests here that need ${what}, not found on this machine.`);
  reported.add(what);
}

function orRequired(file: string | undefined, what: string): string | undefined {
  if (file !== undefined) return file;
  if (process.env.REQUIRE_ALL)
    throw new Error(`${what} is not on this machine, and REQUIRE_ALL is set: install it, see .ci/run`);
  reportSkip(what);
  return undefined;
}

/**
 * The path of the first of `names` that starts with `args` and ends with 0, or undefined.
 * @throws {Error} where none does and REQUIRE_ALL is set
 */
export function findProgram(
  names: string | readonly string[],
  args: readonly string[],
  what = [names].flat().join(' or '),
): string | undefined {
  const files = [names].flat().flatMap(onPath);
  return orRequired(
    files.find((file) => spawnSync(file, args, { stdio: 'ignore' }).status === 0),
    what,
  );
}

/** A Python 3 that can import `modules`: the one of the PATH may lack what the system's own has. */
export const findPython = (...modules: string[]): string | undefined =>
  findProgram(
    'python3',
    ['-c', modules.length > 0 ? `import ${modules.join(', ')}` : ''],
    `python3${modules.length > 0 ? ` with ${modules.join(', ')}` : ''}`,
  );
/** The client of 3D Slicer's MONAI Label module, which the Python package of that name has, and a Python that can run it. */
export function findMonaiLabel(): { python: string; client: string } | undefined {
  const script = `import cgi, os, requests, sys
client = os.path.join(sys.prefix, 'monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py')
print(client if os.path.exists(client) else sys.exit(1))`;
  const found = onPath('python3').flatMap((python) => {
    const { status, stdout } = spawnSync(python, ['-W', 'ignore', '-c', script], { encoding: 'utf8' });
    return status === 0 ? [{ python, client: stdout.trim() }] : [];
  });
  orRequired(found[0]?.client, 'the Python package monailabel, with cgi and requests');
  return found[0];
}
export const findCurl = (): string | undefined => findProgram('curl', ['--version']);
export const findOpenssl = (): string | undefined => findProgram('openssl', ['version']);
/** strace that may trace: containers can forbid it. */
export const findStrace = (): string | undefined =>
  findProgram('strace', ['-o', '/dev/null', 'true'], 'strace that may trace');

/** The validator of DICOM objects of dicom3tools. */
export const findDciodvfy = (): string | undefined => findProgram('dciodvfy', ['-version']);
/**
 * OHIF's own reader of segmentations, installed beside esbuild: its bundler, and the folder of its packages.
 */
export function findCornerstone(): { esbuild: string; packages: string } | undefined {
  const found = onPath('esbuild')
    .map((esbuild) => ({ esbuild, packages: dirname(dirname(esbuild)) }))
    .find(({ packages }) => existsSync(join(packages, '@cornerstonejs/adapters')));
  orRequired(found?.packages, '@cornerstonejs/adapters beside esbuild');
  return found;
}
/** The folder of packages that has nrrd-js, with which OHIF’s extension for MONAI Label reads results: beside esbuild. */
export function findNrrdJs(): string | undefined {
  const folders = onPath('esbuild').map((esbuild) => dirname(dirname(esbuild)));
  return orRequired(
    folders.find((folder) => existsSync(join(folder, 'nrrd-js'))),
    'nrrd-js beside esbuild',
  );
}
/** The pages of OHIF with its extension for MONAI Label, which the Python package monailabel has. */
export function findOhif(): string | undefined {
  const script = `import importlib.util, os, sys
found = importlib.util.find_spec('monailabel')
pages = os.path.join(os.path.dirname(found.origin), 'endpoints/static/ohif') if found else ''
print(pages if os.path.exists(os.path.join(pages, 'index.html')) else sys.exit(1))`;
  const pages = onPath('python3').flatMap((python) => {
    const { status, stdout } = spawnSync(python, ['-c', script], { encoding: 'utf8' });
    return status === 0 ? [stdout.trim()] : [];
  });
  return orRequired(pages[0], 'OHIF in the Python package monailabel');
}
/**
 * The source of a client that others wrote, by the name of its repository: in the folder `clients` beside one of the PATH. `.ci/run` fetches
 * it from GitHub; where that cannot be reached, its tests skip, in CI too (may-skip.ts).
 */
export function findForeignClient(name: string): string | undefined {
  const found = (process.env.PATH ?? '')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(dirname(folder), 'clients', name))
    .find((folder) => existsSync(folder));
  if (!found) reportSkip(`the source of ${name}`);
  return found;
}
/** Debian has none that builds today's kustomizations, so that CI may be without it (may-skip.ts). */
export function findKubectl(): string | undefined {
  const found = onPath('kubectl').find(
    (file) => spawnSync(file, ['kustomize', '--help'], { stdio: 'ignore' }).status === 0,
  );
  if (!found) reportSkip('kubectl');
  return found;
}
/** dcmtk’s reader of structured reports. */
export const findDsrdump = (): string | undefined => findProgram('dsrdump', ['--version']);
/** dcmtk’s sender and receiver of DIMSE. */
export const findDcmtk = (): string | undefined =>
  findProgram('dcmsend', ['--version']) && findProgram('storescp', ['--version']);
/** The folder of PostgreSQL's programs: Debian keeps those of a server off the PATH, by version. */
export function findPostgres(): string | undefined {
  const home = '/usr/lib/postgresql';
  const versions = existsSync(home) ? readdirSync(home).sort((a, b) => Number(b) - Number(a)) : [];
  const found = versions
    .map((version) => join(home, version, 'bin'))
    .find((bin) => existsSync(join(bin, 'initdb')));
  return orRequired(found, 'postgresql');
}
/** Ceph's S3, and what runs a cluster under it. */
export const findRadosgw = (): string | undefined =>
  findProgram('ceph-osd', ['--version'], 'radosgw') && findProgram('radosgw', ['--version']);
export const findNginx = (): string | undefined => findProgram('nginx', ['-v']);
export const findCaddy = (): string | undefined => findProgram('caddy', ['version'], 'Caddy');
export const findHaproxy = (): string | undefined => findProgram('haproxy', ['-v'], 'HAProxy');
export const findApache = (): string | undefined => findProgram(['apache2', 'httpd'], ['-v'], 'Apache httpd');
/** A JDK, which runs a source file by itself. */
export const findJava = (): string | undefined =>
  findProgram('javac', ['-version'], 'a JDK') && findProgram('java', ['-version'], 'a JDK');

/** Orthanc, a small PACS; with its plugin for DICOMweb (test/orthanc.ts). */
export const findOrthanc = (): string | undefined =>
  orRequired(
    existsSync(orthancPlugin) ? onPath('Orthanc')[0] : undefined,
    'Orthanc with its DICOMweb plugin',
  );
export const orthancPlugin = '/usr/share/orthanc/plugins/libOrthancDicomWeb.so';

/** Chromium or Chrome: the variable CHROMIUM, else by name. */
export function findChromium(): string | undefined {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const files = ['chromium', 'chromium-browser', 'google-chrome'].flatMap(onPath);
  return orRequired(files[0], 'Chromium');
}
