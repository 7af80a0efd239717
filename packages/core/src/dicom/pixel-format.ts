import type { FrameShape } from './decoders.ts';

/** How the pixels of a file are stored (PS3.3 C.7.6.3). */
export interface PixelFormat extends FrameShape {
  readonly highBit: number;
  /** 'integer' (7FE0,0010), or a float of (7FE0,0008) or (7FE0,0009). */
  readonly number: 'integer' | 'float32' | 'float64';
  readonly photometricInterpretation: string;
}
