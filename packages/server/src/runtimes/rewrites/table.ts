import { oneSlope } from './one-slope.ts';
import { repeat } from './repeat.ts';
import type { Rewrite } from './rewrite.ts';
import { subPixel } from './sub-pixel.ts';
import { winograd } from './winograd.ts';

/** The rewrites, at most one for an operator. */
export const rewrites: readonly Rewrite[] = [subPixel, oneSlope, repeat, winograd];
