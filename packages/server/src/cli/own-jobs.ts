import { appendFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { giveToOwner } from '../store/files/folder-owner.ts';
import { writeWhole } from '../store/files/whole-file.ts';

/** A job that `tomaat predict` has made. */
export interface OwnJob {
  readonly job: string;
  /** Address of its server. */
  readonly server: string;
  readonly service: string;
  /** The file, as it was given. */
  readonly input: string;
  readonly time: string;
}

/*
 * The jobs of this user, in the file `jobs.jsonl` of the data folder, readable by its owner alone: a line for each. It names files of this
 * machine, and is never sent.
 */
const fileOf = (dataFolder: string): string => join(dataFolder, 'jobs.jsonl');

/** Lines that are kept at least; the file is shortened when it has twice as many. */
const keptJobs = 1000;

/** Adds a job. A folder that cannot be written, for whatever reason, is no reason to fail: the job is then not listed. */
export async function noteOwnJob(job: OwnJob, dataFolder: string): Promise<void> {
  const file = fileOf(dataFolder);
  try {
    await mkdir(dataFolder, { recursive: true, mode: 0o700 });
    await appendFile(file, `${JSON.stringify(job)}\n`, { mode: 0o600 });
    giveToOwner(file);
    const jobs = await ownJobs(dataFolder);
    if (jobs.length < 2 * keptJobs) return;
    const lines = jobs.slice(0, keptJobs).reverse();
    await writeWhole(file, lines.map((one) => `${JSON.stringify(one)}\n`).join(''), {
      prepare: (part) => giveToOwner(part),
    });
  } catch (error) {
    const { syscall, code } = error as NodeJS.ErrnoException;
    if (syscall === undefined && code !== 'FORBIDDEN') throw error;
  }
}

/** The jobs, newest first. A line that was cut off is left out. */
export async function ownJobs(dataFolder: string): Promise<OwnJob[]> {
  let text: string;
  try {
    text = await readFile(fileOf(dataFolder), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return text.split('\n').flatMap(parseLine).reverse();
}

function parseLine(line: string): OwnJob[] {
  try {
    const job = JSON.parse(line) as OwnJob;
    const isWhole = (['job', 'server', 'service', 'input', 'time'] as const).every(
      (name) => typeof job[name] === 'string',
    );
    return isWhole ? [job] : [];
  } catch {
    return [];
  }
}
