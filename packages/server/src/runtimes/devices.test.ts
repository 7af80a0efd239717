import { describe, expect, it } from 'vitest';
import { outOfCardMemory } from './card-memory.ts';
import { type ComputeDevice, formatDevices, kindOf, parseDevices, slotsOf } from './devices.ts';

describe('parseDevices()', () => {
  it.each([
    ['cpu', ['cpu']],
    ['cuda', ['cuda:0']],
    ['CUDA:3', ['cuda:3']],
    ['cuda:0,1', ['cuda:0', 'cuda:1']],
    [' cuda:2, 0 ', ['cuda:2', 'cuda:0']],
    ['webgpu', ['webgpu']],
  ])('reads %s', (text, devices) => {
    expect(parseDevices(text)).toEqual(devices);
  });

  it.each([
    '',
    'gpu',
    'cuda:',
    'cuda:-1',
    'cuda:1,1',
    'cuda:64',
    'cuda:1;2',
    'cpu,cuda',
    'cuda:0,',
    'webgpu:0',
  ])('refuses “%s”', (text) => {
    expect(parseDevices(text)).toBeUndefined();
  });

  it('takes back what formatDevices() writes', () => {
    for (const text of ['cpu', 'cuda:0', 'cuda:5,1', 'webgpu'])
      expect(formatDevices(parseDevices(text)!)).toBe(text);
  });
});

describe('slotsOf()', () => {
  it('gives each card one prediction at a time, and the processor as many as workers', () => {
    expect(slotsOf(['cpu'], 3)).toBe(3);
    expect(slotsOf(['cuda:0', 'cuda:1'], 1)).toBe(2);
    expect(slotsOf(['webgpu'], 5)).toBe(1);
    expect(kindOf('cuda:7')).toBe('cuda');
  });
});

describe('outOfCardMemory()', () => {
  const device: ComputeDevice = { device: 'cuda:0', title: 'cuda:0 (NVIDIA A2, 16101 MB)', environment: {} };
  const about = { name: 'net.onnx', device, cause: undefined };
  // As onnxruntime 1.30 (bfc_arena.cc, cuda_call.cc, buffer_manager.cc) writes them; those of WebGPU were seen with a real device.
  const full = [
    'Non-zero status code returned while running Conv node. Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 3623878656',
    'CUDA failure 2: out of memory ; GPU=0 ; hostname=node ; file=cuda_allocator.cc ; line=55 ; expr=cudaMalloc((void**)&p, size);',
    'CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0',
    'CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0',
    'vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY',
    'Failed to download data from buffer. wgpu::MapAsyncStatus value: 3, message: [Invalid Buffer (unlabeled)] is invalid due to a previous error.',
  ];

  it.each(full)('recognises %s', (message) => {
    const error = outOfCardMemory(message, { ...about, dims: [1, 1, 100, 200, 300] });
    expect(error?.code).toBe('OUT_OF_MEMORY');
    // Half of 6,000,000 voxels, x first.
    expect(error?.message).toContain('About 238 × 158 × 79 voxels at once may fit.');
    expect(error?.message).toContain('NVIDIA A2');
    expect(238 * 158 * 79).toBeLessThan(3_000_000);
  });

  it('says of a network that cannot be loaded what to do with the card', () => {
    expect(outOfCardMemory(full[1], about)?.message).toMatch(/not enough free memory to load.*--device/);
  });

  it('leaves other faults alone', () => {
    const message = 'CUDA failure 700: an illegal memory access was encountered ; GPU=0';
    expect(outOfCardMemory(message, about)).toBeUndefined();
  });
});
