import type { InputParameter, Service } from '@tomaat/client';
import type { Vec3, Volume } from '@tomaat/core';
import type { Removal } from '../dicom/messages.ts';
import type { Scan } from './scan.ts';

/** The state of a service's form. */
export type ServiceInput = Service['inputs'][number];
export type InputOf<Type extends ServiceInput['type']> = Extract<ServiceInput, { type: Type }>;

export interface ChosenVolume {
  scan: Scan;
  /** Which frame of a 4-D file, starting at 0. */
  frame?: number;
  /** The voxels, once read; missing while only the header was read. */
  volume?: Volume;
  error?: unknown;
  /** What is removed from a DICOM series before it is sent; missing until known. */
  removal?: Removal;
}

/** Why a field has no volume yet: its files are being read, or a series has to be chosen. */
export type PendingVolume = 'reading' | 'series';

export type PointList = readonly Vec3[];

/** The service's default values. */
export function initialValues(inputs: readonly ServiceInput[]): Record<string, InputParameter> {
  const values: Record<string, InputParameter> = {};
  for (const input of inputs) {
    if (input.type === 'slider') values[input.name] = input.default ?? input.minimum;
    if (input.type === 'checkbox') values[input.name] = input.default ?? false;
    if (input.type === 'radiobutton') values[input.name] = input.default ?? input.options[0];
    if (input.type === 'fiducials') values[input.name] = [];
  }
  return values;
}
