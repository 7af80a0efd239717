import { TomaatError } from '@tomaat/core';
import { engineOf } from '../config.ts';
import {
  type ComputeDevice,
  type Device,
  deviceForms,
  parseDevices,
  processor,
} from '../runtimes/devices.ts';
import { openDevices } from '../worker/open-devices.ts';

/** The flags of commands that compute without a file of settings. */
export interface EngineFlags {
  /** What computes networks; the processor if missing. */
  device?: string;
  /** False with --no-rewrite. */
  rewrite?: boolean;
  /** The data folder. */
  data?: string;
}

/** The devices of --device: the processor if it was not given. */
export function devicesOf(text: string | undefined): readonly Device[] {
  const devices = text === undefined ? ['cpu' as const] : parseDevices(text);
  if (devices) return devices;
  throw new TomaatError('BAD_REQUEST', `--device “${text?.slice(0, 60)}” must be one of: ${deviceForms}.`, {
    field: 'device',
  });
}

/** The one device of a command that makes one prediction at a time, after it has computed something. */
export async function openDevice(
  { device: text, ...engine }: EngineFlags,
  signal: AbortSignal,
): Promise<ComputeDevice> {
  const devices = devicesOf(text);
  if (devices.length > 1)
    throw new TomaatError(
      'BAD_REQUEST',
      `--device ${text} names ${devices.length} cards, and this command makes one prediction at a time. Name one.`,
      { field: 'device' },
    );
  const [opened = processor] = await openDevices(devices, { signal, ...engineOf(engine) });
  return opened;
}
