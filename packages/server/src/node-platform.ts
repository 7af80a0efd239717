import * as zlib from 'node:zlib';
import { type Platform, zlibPlatform } from '@tomaat/core';

/** The platform that core runs on in Node. */
export const nodePlatform: Platform = zlibPlatform(zlib);
