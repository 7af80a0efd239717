import { describe, expect, it } from 'vitest';
import { parseModelServer } from './model-server.ts';

describe('parseModelServer()', () => {
  it.each([
    [
      'grpc://triton:8001',
      { protocol: 'grpc', secure: false, host: 'triton', port: 8001, name: 'triton:8001' },
    ],
    ['grpcs://Triton.Example:443', { protocol: 'grpc', secure: true, host: 'triton.example', port: 443 }],
    ['grpc://10.1.2.3:80', { host: '10.1.2.3', port: 80, name: '10.1.2.3:80' }],
    ['grpc://[fd00::1]:8001', { host: 'fd00::1', port: 8001, name: '[fd00::1]:8001' }],
    ['http://triton', { protocol: 'http', secure: false, port: 80, name: 'triton:80' }],
    ['https://triton/', { protocol: 'http', secure: true, port: 443, name: 'triton:443' }],
    // As every program of the machine would understand it.
    ['grpc://0x7f.1:8001', { host: '127.0.0.1', port: 8001 }],
  ])('reads %s', (text, wanted) => {
    expect(parseModelServer(text)).toMatchObject(wanted);
  });

  it.each([
    'triton:8001',
    'grpc://triton',
    'grpcs://triton',
    'grpc://:8001',
    'grpc://triton:0',
    'grpc://triton:65536',
    'grpc://user:key@triton:8001',
    'grpc://triton:8001/v2',
    'grpc://triton:8001?a',
    'grpc://triton:8001#a',
    'ftp://triton:21',
    'unix:///run/triton',
    '',
  ])('refuses %s', (text) => {
    expect(parseModelServer(text)).toBeUndefined();
  });
});
