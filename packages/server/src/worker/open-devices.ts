import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DeviceKind, TomaatError } from '@tomaat/core';
import type { FastifyBaseLogger } from 'fastify';
import { type ComputeDevice, type Device, kindOf, processor } from '../runtimes/devices.ts';
import { ownExtension } from '../source.ts';
import { askChild } from './ask-child.ts';
import { type GraphicsCard, listCards } from './graphics-cards.ts';

/** What the process that tries a device reports. */
export interface DeviceReport {
  /** Why nothing can be computed on it; undefined if it computes. */
  readonly fault?: string;
  /** Files of the engine that are missing, with their folder. */
  readonly missing?: { readonly folder: string; readonly files: readonly string[] };
}

const childFile = fileURLToPath(new URL(`./probe-child${ownExtension}`, import.meta.url));
/** The first use of CUDA on a machine loads about 1 GB of libraries. */
const probeLimitMs = 120_000;
/**
 * What a process takes of a card before its first network, MB: CUDA's context and the code of cuDNN and cuBLAS. A round figure from their
 * documentation, not measured here.
 */
const contextMb = 600;

export interface OpenDevicesOptions {
  signal: AbortSignal;
  /** Whether networks may be computed in faster forms; true if missing. */
  rewrite?: boolean;
  /** The data folder, where what is measured of networks is kept; each process measures for itself if missing. */
  data?: string;
  /** `false`: what is not known of networks is measured in spare time. */
  measures?: false;
  environment?: NodeJS.ProcessEnv;
  /** The NVIDIA cards of this machine; by nvidia-smi if missing. */
  cards?: () => Promise<readonly GraphicsCard[] | undefined>;
  logger?: Pick<FastifyBaseLogger, 'info' | 'warn'>;
}

/**
 * Finds the devices and computes something on each, in a process of its own: nothing falls back to the processor later.
 * @throws {TomaatError} BAD_REQUEST if one is absent or does not compute, with the remedy
 */
export async function openDevices(
  devices: readonly Device[],
  {
    signal,
    rewrite = true,
    data,
    measures,
    environment = process.env,
    cards = listCards,
    logger,
  }: OpenDevicesOptions,
): Promise<ComputeDevice[]> {
  if (devices.every((device) => device === 'cpu')) {
    const trialsFolder = data === undefined ? undefined : join(data, 'trials');
    return [{ ...processor, ...(rewrite ? {} : { rewrite }), trialsFolder, measures }];
  }
  const listed = devices.some((device) => kindOf(device) === 'cuda') ? await cards() : undefined;
  const opened: ComputeDevice[] = [];
  for (const device of devices) {
    const found =
      kindOf(device) === 'cuda'
        ? findCard(device, environment, listed)
        : { device, title: device, environment: {} };
    await requireComputing(found, signal);
    const { title, memoryMb } = found;
    if (memoryMb === undefined)
      logger?.warn(
        { device: title },
        'the memory of this device is unknown: volumes are not refused by it before they run',
      );
    else logger?.info({ device: title, memoryMb }, 'networks run on this device');
    opened.push(found);
  }
  return opened;
}

/**
 * The card of a number, as the processes are to see it: alone, by its UUID where that is known. The numbers are those of `CUDA_VISIBLE_DEVICES`
 * if it is set, as by Slurm; otherwise those of nvidia-smi.
 */
function findCard(
  device: Device,
  environment: NodeJS.ProcessEnv,
  cards: readonly GraphicsCard[] | undefined,
): ComputeDevice {
  const number = Number(device.slice('cuda:'.length));
  const visible = environment.CUDA_VISIBLE_DEVICES?.split(',').map((word) => word.trim());
  const refuse = (message: string) => new TomaatError('BAD_REQUEST', message, { field: 'device' });
  if (visible && !visible[number]) {
    const most = visible.filter((word) => word !== '').length;
    throw refuse(
      `There is no ${device}: CUDA_VISIBLE_DEVICES names ${most} card${most === 1 ? '' : 's'}. ${most > 0 ? `Available: cuda:0 to cuda:${most - 1}. Choose one, or change that variable.` : 'Change that variable, or give --device cpu.'}`,
    );
  }
  const word = visible?.[number] ?? String(number);
  const card = cards?.find(({ index, uuid }) =>
    /^[0-9]+$/.test(word) ? index === Number(word) : uuid.startsWith(word),
  );
  // A part of a card (MIG) has a name of its own, which nvidia-smi does not list here.
  if (cards && !card && !word.startsWith('MIG-')) {
    const names = cards.map(({ index, name }) => `${index} (${name})`).join(', ') || 'none';
    throw refuse(
      `There is no ${device}: nvidia-smi lists the cards ${names}. Choose one of them, or give --device cpu.`,
    );
  }
  return {
    device,
    title: card ? `${device} (${card.name}, ${card.totalMb} MB)` : device,
    ...(card && { memoryMb: Math.max(0, card.freeMb - contextMb) }),
    environment: {
      CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
      CUDA_VISIBLE_DEVICES: card?.uuid ?? word,
      // TF32 rounds to 10 bits, which changes labels; NVIDIA's libraries use it by default.
      NVIDIA_TF32_OVERRIDE: environment.NVIDIA_TF32_OVERRIDE ?? '0',
    },
  };
}

async function requireComputing(device: ComputeDevice, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.timeout(probeLimitMs);
  let report: DeviceReport;
  try {
    const said = await askChild<DeviceReport>(childFile, [JSON.stringify(device)], {
      environment: device.environment,
      signal: AbortSignal.any([signal, limit]),
    });
    report =
      'answer' in said ? said.answer : { fault: `the process that tried it ${said.died}: ${said.lastWords}` };
  } catch (error) {
    if (!limit.aborted || signal.aborted) throw error;
    report = { fault: `it gave no answer within ${probeLimitMs / 1000} s` };
  }
  if (report.fault === undefined) return;
  throw new TomaatError(
    'BAD_REQUEST',
    `The device ${device.title} cannot be used: ${report.fault.trim().replace(/\.$/, '')}. ${remedyFor(kindOf(device.device), report)}`,
    { field: 'device' },
  );
}

/** What an operator does about a device that does not compute. */
function remedyFor(kind: DeviceKind, { missing }: DeviceReport): string {
  const otherwise = 'or give --device cpu. Nothing falls back to the processor by itself.';
  if (kind === 'webgpu')
    return `Install the driver of the graphics card and its Vulkan loader (libvulkan.so.1), ${otherwise}`;
  if (process.platform !== 'linux' || process.arch !== 'x64')
    return `CUDA is available on Linux with x64 only. Use such a machine, ${otherwise}`;
  if (missing)
    return `Put ${missing.files.join(' and ')} into ${missing.folder} (docs/guides/graphics-cards.md says from where), ${otherwise}`;
  return `Install the NVIDIA driver, CUDA 12 and cuDNN 9 where the loader finds them (docs/guides/graphics-cards.md), ${otherwise}`;
}
