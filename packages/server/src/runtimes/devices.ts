import { type DeviceKind, deviceKinds } from '@tomaat/core';

/** What computes the networks of the runtime `onnx`: the processor, one graphics card by CUDA, or the one that WebGPU chooses. */
export type Device = 'cpu' | 'webgpu' | `cuda:${number}`;

/** A device as a process is given it; see worker/open-devices.ts. */
export interface ComputeDevice {
  readonly device: Device;
  /** For people: `cuda:1 (NVIDIA A2, 15356 MB)`. */
  readonly title: string;
  /** What networks may take of the card's own memory, MB (10^6 bytes); undefined where that is unknown, and for the processor. */
  readonly memoryMb?: number;
  /** Variables by which the process sees this card alone. */
  readonly environment: Readonly<Record<string, string>>;
  /** `false` if the operator wants networks computed as their files have them. */
  readonly rewrite?: false;
  /** Folder where what is measured of networks is kept; see measured.ts. */
  readonly trialsFolder?: string;
  /** `false`: what is not known of a network is not measured when it is opened, but later; see worker/measure-apps.ts. */
  readonly measures?: false;
}

export const processor: ComputeDevice = { device: 'cpu', title: 'cpu', environment: {} };

/** What `--device` may be, in words. */
export const deviceForms = 'cpu, cuda (the same as cuda:0), cuda:0,1 or webgpu';

/** More cards than any machine has. */
const maxCards = 64;

/** The devices that `--device` names: one, or several cards. Undefined if the text is none of `deviceForms`. */
export function parseDevices(text: string): Device[] | undefined {
  const word = text.trim().toLowerCase();
  if (word === 'cpu' || word === 'webgpu') return [word];
  if (word === 'cuda') return ['cuda:0'];
  const listed = /^cuda:([0-9, ]{1,400})$/.exec(word)?.[1].split(',');
  if (!listed) return undefined;
  const cards = listed.map((number) => (/^ ?[0-9]{1,2} ?$/.test(number) ? Number(number) : Number.NaN));
  const isValid = cards.every((card) => card < maxCards) && new Set(cards).size === cards.length;
  return isValid ? cards.map((card) => `cuda:${card}` as const) : undefined;
}

/** The devices in the form of `--device`. */
export function formatDevices(devices: readonly Device[]): string {
  const cards = devices.flatMap((device) =>
    device.startsWith('cuda:') ? [device.slice('cuda:'.length)] : [],
  );
  return cards.length > 0 ? `cuda:${cards.join(',')}` : devices.join(',');
}

/** Its kind, as a manifest names it. */
export const kindOf = (device: Device): DeviceKind =>
  deviceKinds.find((kind) => kind === device.split(':')[0]) ?? 'cpu';

/**
 * The engine's provider, without another one to fall back to: a network that it cannot load is refused. Single operators that a provider lacks
 * are computed by the engine on the processor; the canary compares the result. A process sees one card, which is its first.
 */
export const providersOf = (device: Device): ('cpu' | 'webgpu' | { name: 'cuda'; deviceId: number })[] =>
  device === 'cpu' || device === 'webgpu' ? [device] : [{ name: 'cuda', deviceId: 0 }];

/** Whether networks run on something with memory of its own. */
export const isCard = ({ device }: Pick<ComputeDevice, 'device'>): boolean => device !== 'cpu';

/** Concurrent predictions: one on each card; on the processor as many as `workers` says. */
export const slotsOf = (devices: readonly Device[], workers: number): number =>
  devices.includes('cpu') ? workers : devices.length;
