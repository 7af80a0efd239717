import { bytesField, integerField, joinParts, type Parts } from './protobuf.ts';

/** The element type float32 (TensorProto.DataType). */
const float32 = 1;

const value = (name: string, dims: readonly number[]): Parts => {
  const shape = dims.flatMap((length) => bytesField(1, integerField(1, length)));
  return [
    ...bytesField(1, name),
    ...bytesField(2, bytesField(1, [...integerField(1, float32), ...bytesField(2, shape)])),
  ];
};

/**
 * The smallest ONNX file that shows whether a device computes: `y` = `x` + `x`, both float32 [4]. Field numbers are those of onnx.proto
 * (https://github.com/onnx/onnx).
 */
export function probeNetwork(): Uint8Array {
  const node = [...bytesField(1, 'x'), ...bytesField(1, 'x'), ...bytesField(2, 'y'), ...bytesField(4, 'Add')];
  const graph = [
    ...bytesField(1, node),
    ...bytesField(2, 'probe'),
    ...bytesField(11, value('x', [4])),
    ...bytesField(12, value('y', [4])),
  ];
  return joinParts([
    ...integerField(1, 8),
    ...bytesField(7, graph),
    ...bytesField(8, [...bytesField(1, ''), ...integerField(2, 17)]),
  ]);
}
