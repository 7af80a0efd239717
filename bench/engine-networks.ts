/** Networks as MONAI and nnU-Net build and export them, with random weights: the work is that of the real ones. */
import {
  createRandom,
  encodeModel,
  type InitializerSpec,
  type NodeSpec,
  unetNetwork,
} from '../packages/server/test/onnx-fixture.ts';

/** nnU-Net's PlainConvUNet with five levels: kernel 2 upsamples, LeakyReLU. */
export const nnunetNetwork = (channels = [32, 64, 128, 256, 320]): Uint8Array =>
  unetNetwork({ classes: 5, channels });

/** MONAI's UNet(channels, strides 2, num_res_units 2): kernel 3 upsamples, PReLU of one slope. */
export function monaiNetwork(channels = [16, 32, 64, 128], classes = 14): Uint8Array {
  const random = createRandom(1);
  const nodes: NodeSpec[] = [];
  const initializers: InitializerSpec[] = [];
  let count = 0;
  const constant = (dims: readonly number[], value: () => number): string => {
    const name = `w${count++}`;
    const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, value);
    initializers.push({ name, dims, data });
    return name;
  };
  const add = (op: string, inputs: readonly string[], attributes?: NodeSpec['attributes']): string => {
    const output = `v${count++}`;
    nodes.push({ op, inputs, outputs: [output], attributes });
    return output;
  };
  const uniform = (fanIn: number) => () => (random() * 2 - 1) * Math.sqrt(3 / fanIn);
  const three = (value: number) => [value, value, value];
  const conv = (input: string, from: number, to: number, kernel: number, stride: number): string => {
    const fanIn = from * kernel ** 3;
    const w = constant([to, from, ...three(kernel)], uniform(fanIn));
    const pad = (kernel - 1) / 2;
    return add('Conv', [input, w, constant([to], uniform(fanIn))], {
      kernel_shape: three(kernel),
      strides: three(stride),
      pads: [...three(pad), ...three(pad)],
    });
  };
  /** InstanceNorm and PReLU. */
  const adn = (input: string, width: number): string => {
    const norm = add(
      'InstanceNormalization',
      [input, constant([width], () => 1), constant([width], () => 0)],
      { epsilon: { float: 1e-5 } },
    );
    return add('PRelu', [norm, constant([1, 1, 1, 1], () => 0.25)]);
  };
  const residual = (input: string, from: number, to: number, stride: number): string => {
    const first = adn(conv(input, from, to, 3, stride), to);
    const second = adn(conv(first, to, to, 3, 1), to);
    return add('Add', [second, conv(input, from, to, stride === 1 ? 1 : 3, stride)]);
  };
  const level = (input: string, from: number, depth: number, to: number): string => {
    const width = channels[depth];
    const down = residual(input, from, width, 2);
    const isDeepest = depth === channels.length - 2;
    const deep = isDeepest
      ? residual(down, width, channels[depth + 1], 1)
      : level(down, width, depth + 1, width);
    const inner = width + (isDeepest ? channels[depth + 1] : width);
    const w = constant([inner, to, 3, 3, 3], uniform(inner * 4));
    const up = add('ConvTranspose', [add('Concat', [down, deep], { axis: 1 }), w, constant([to], () => 0)], {
      kernel_shape: three(3),
      strides: three(2),
      pads: [...three(1), ...three(1)],
      output_padding: three(1),
    });
    const normed = adn(up, to);
    const unit = conv(normed, to, to, 3, 1);
    return add('Add', [depth === 0 ? unit : adn(unit, to), normed]);
  };
  nodes.push({ op: 'Identity', inputs: [level('image', 1, 0, classes)], outputs: ['scores'] });
  return encodeModel({
    nodes,
    initializers,
    inputs: [{ name: 'image', dims: ['n', 1, 'z', 'y', 'x'] }],
    outputs: [{ name: 'scores', dims: ['n', classes, 'z', 'y', 'x'] }],
  });
}
