import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** A card as nvidia-smi lists it. */
export interface GraphicsCard {
  /** In the order of the PCI bus. */
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  /** MB (10^6 bytes). */
  readonly totalMb: number;
  readonly freeMb: number;
}

const fields = ['index', 'uuid', 'memory.total', 'memory.free', 'name'];
/** The first call after a start of the machine loads the driver, which takes seconds. */
const limitMs = 30_000;

/** The NVIDIA cards of this machine; undefined where nvidia-smi is missing or fails. */
export async function listCards(program = 'nvidia-smi'): Promise<GraphicsCard[] | undefined> {
  try {
    const { stdout } = await promisify(execFile)(
      program,
      [`--query-gpu=${fields.join(',')}`, '--format=csv,noheader,nounits'],
      { timeout: limitMs, maxBuffer: 1 << 20 },
    );
    return parseCards(stdout);
  } catch {
    // Not there, not executable, without a driver, or too slow: then nothing is known about the cards.
    return undefined;
  }
}

/** Reads the lines of `nvidia-smi --format=csv,noheader,nounits`; those without numbers are left out. Its MiB become MB. */
export function parseCards(text: string): GraphicsCard[] {
  return text.split('\n').flatMap((line) => {
    const [index, uuid, total, free, ...name] = line.split(',').map((part) => part.trim());
    const numbers = [index, total, free].map((part) =>
      /^[0-9]{1,9}$/.test(part ?? '') ? Number(part) : Number.NaN,
    );
    if (numbers.some(Number.isNaN) || !uuid) return [];
    const toMb = (mib: number) => Math.floor((mib * 2 ** 20) / 1e6);
    return [
      {
        index: numbers[0],
        uuid,
        name: name.join(', '),
        totalMb: toMb(numbers[1]),
        freeMb: toMb(numbers[2]),
      },
    ];
  });
}
