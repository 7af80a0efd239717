import type { DestinationConfig } from '../config.ts';
import type { Connect } from '../dependencies.ts';
import type { Destination } from '../series.ts';
import { openDicomWebDestination } from './dicomweb.ts';
import { openFolderDestination } from './folder.ts';

/** The destination of a configuration. Nothing is asked or written before the first store. */
export const openDestination = (name: string, config: DestinationConfig, connect: Connect): Destination =>
  config.type === 'folder'
    ? openFolderDestination(name, config)
    : openDicomWebDestination(name, config, connect);
