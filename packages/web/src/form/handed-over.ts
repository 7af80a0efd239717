import type { Picked } from '../dicom/picked-files.ts';

/** Files that were dropped on the first page, for the page of the service that is opened next. */
let files: Picked | undefined;

export function handOver(picked: Picked | undefined): void {
  files = picked;
}

/** Takes them, once. */
export function takeHandedOver(): Picked | undefined {
  const taken = files;
  files = undefined;
  return taken;
}
