import { describe, expect, it } from 'vitest';
import { writeTransform } from '../formats/transform-file.ts';
import {
  collectBytes,
  type ReadLimits,
  type SourceFile,
  sourceFromBytes,
  writeVolume,
} from '../formats/volume-file.ts';
import { webPlatform } from '../formats/web-platform.ts';
import { type Affine, applyAffine } from '../geometry/affine.ts';
import { oblique, patterned, voxelAt } from '../geometry/fixtures.ts';
import type { Volume } from '../volume.ts';
import {
  answer,
  app,
  fileOf,
  forEachVoxel,
  type Given,
  levels,
  network,
  networkOf,
  onnx,
  program,
  programOf,
  run,
  scan,
  scanFiles,
  size,
} from './fixtures.ts';
import type { ModelSpec } from './manifest.ts';
import { type AppContext, predict } from './predict.ts';
import { type Stage, stages } from './stages.ts';
import type { InputValue } from './values.ts';

describe('predict(): stages', () => {
  it('reports every stage with its share of the whole', async () => {
    const manifest = programOf({ outputs: { ...app.outputs, note: { type: 'PlainText' } } });
    const { progress } = await run(
      manifest,
      program((inputs, context) => {
        for (const fraction of [0.25, 7, -7]) context.progress(fraction);
        return { ...answer(inputs, context), note: 'done' };
      }),
    );
    const changes = progress.filter((step, i) => String(step) !== String(progress[i - 1]));
    expect(changes).toEqual([
      ['decode', 0],
      ['decode', 0.05],
      ['preprocess', 0.05],
      ['preprocess', 0.1],
      ['infer', 0.1],
      ['infer', 0.3],
      ['infer', 0.9],
      ['infer', 0.1],
      ['infer', 0.9],
      ['postprocess', 0.9],
      ['postprocess', 0.96],
      ['encode', 0.96],
      ['encode', 0.98],
      ['encode', 1],
    ]);
    expect([...new Set(progress.map(([stage]) => stage))]).toEqual([...stages]);
  });

  it('reports what part of a file is read', async () => {
    const large = patterned([150, 50, 30]);
    const { progress } = await run(programOf(), program(answer), {
      files: { volume: [await fileOf(large)] },
    });
    const fractions = progress.filter(([stage]) => stage === 'decode').map(([, fraction]) => fraction);
    expect(fractions.some((v) => v > 0 && v < 0.05)).toBe(true);
  });

  it('takes the progress of the network for its own', async () => {
    const sliding = { ...onnx, inferer: { type: 'slidingWindow', roiSize: [5, 4, 1], overlap: 0 } };
    const { progress } = await run(networkOf({ model: sliding }), levels);
    const fractions = progress.filter(([stage]) => stage === 'infer').map(([, fraction]) => fraction);
    expect(fractions).toContain(0.366667);
    expect(fractions).toContain(0.633333);
  });

  it('returns the milliseconds of each stage', async () => {
    const before = performance.now();
    const { times } = await run(
      programOf(),
      program((inputs, context) => {
        const end = performance.now() + 4;
        while (performance.now() < end);
        return answer(inputs, context);
      }),
    );
    expect(Object.keys(times).sort()).toEqual([...stages].sort());
    expect(times.infer).toBeGreaterThanOrEqual(4);
    const sum = Object.values(times).reduce((a, b) => a + b);
    expect(sum).toBeLessThanOrEqual(performance.now() - before);
    expect(Math.min(...Object.values(times))).toBeGreaterThanOrEqual(0);
  });

  it('does without callbacks', async () => {
    let written = 0;
    const manifest = programOf({ preprocess: [{ cropForeground: { above: 99 } }] });
    await predict(
      manifest,
      { files: await scanFiles(), parameters: {} },
      {
        platform: webPlatform,
        load: async () =>
          program((inputs, context) => {
            context.progress(0.5, 'half');
            context.log('words');
            return answer(inputs, context);
          }),
        write: async () => void written++,
      },
    );
    expect(written).toBe(1);
  });
});

describe('predict(): failures', () => {
  const failing = (error: unknown) =>
    run(
      programOf(),
      program(() => {
        throw error;
      }),
    );

  it('says which stage failed, and the first line of why', async () => {
    const cause = new Error('no such layer\n  at line 7');
    const failed = expect.objectContaining({ code: 'APP_FAILED', cause });
    await expect(failing(cause)).rejects.toEqual(failed);
    await expect(failing(cause)).rejects.toThrow(/infer stage: no such layer$/);
    await expect(failing('plain words')).rejects.toThrow(/: plain words$/);
    await expect(failing(new Error('x'.repeat(501)))).rejects.toThrow(/ x{500}$/);
    await expect(
      run(
        programOf(),
        program(() => ({ segmentation: { voxels: 0, affine: 0 } })),
      ),
    ).rejects.toThrow(/postprocess stage/);
  });

  it('passes errors with a code on', async () => {
    await expect(
      run(
        programOf(),
        program(() => ({})),
      ),
    ).rejects.toMatchObject({
      code: 'APP_OUTPUT',
      field: 'segmentation',
    });
  });

  it('refuses a network where the manifest has a program', async () => {
    await expect(run(programOf(), levels)).rejects.toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringContaining('the runtime module must give a program'),
    });
  });

  it('refuses a program where the manifest has a network', async () => {
    await expect(run(networkOf(), program(answer))).rejects.toMatchObject({
      code: 'APP_FAILED',
      message: expect.stringContaining('onnx'),
    });
  });
});

describe('predict(): cancellation', () => {
  const reason = new Error('gone');

  it('begins nothing after the signal', async () => {
    const loaded: ModelSpec[] = [];
    const progress: string[] = [];
    const given = {
      signal: AbortSignal.abort(reason),
      onProgress: (stage: Stage) => void progress.push(stage),
      load: async (model: ModelSpec) => {
        loaded.push(model);
        return program(answer);
      },
    };
    await expect(run(programOf(), program(answer), given)).rejects.toBe(reason);
    expect([loaded, progress]).toEqual([[], []]);
  });

  it('stops after the stage in which the signal comes', async () => {
    const controller = new AbortController();
    const seen: Stage[] = [];
    const given = { signal: controller.signal, onProgress: (stage: Stage) => void seen.push(stage) };
    const stopping = program((inputs, context) => {
      expect(context.signal).toBe(controller.signal);
      controller.abort(reason);
      return answer(inputs, context);
    });
    await expect(run(programOf(), stopping, given)).rejects.toBe(reason);
    expect(new Set(seen)).toEqual(new Set(['decode', 'preprocess', 'infer']));
  });

  it('passes on as it is what a program throws then', async () => {
    const controller = new AbortController();
    const own = new Error('stopped\nby the caller');
    const stopping = program(() => {
      controller.abort(reason);
      throw own;
    });
    await expect(run(programOf(), stopping, { signal: controller.signal })).rejects.toBe(own);
  });

  it('stops between the windows of a network', async () => {
    const controller = new AbortController();
    let runs = 0;
    const stopping = network(([v]) => {
      if (runs++ === 0) controller.abort(reason);
      return [v, 10];
    });
    const sliding = { ...onnx, inferer: { type: 'slidingWindow', roiSize: [5, 4, 1], overlap: 0 } };
    await expect(
      run(networkOf({ model: sliding }), stopping, { signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'CANCELED', cause: reason });
    expect(runs).toBe(20);
  });

  it('stops before the next step of the preprocessing and of the postprocessing', async () => {
    const stopAt = (stage: Stage) => {
      const controller = new AbortController();
      const onProgress = (now: Stage) => now === stage && controller.abort(reason);
      return { signal: controller.signal, onProgress };
    };
    const bad = [{ cropForeground: { above: 1, margin: 1 } }, { spacing: { pixdim: [1e-4, 1e-4, 1e-4] } }];
    const tooFine = programOf({ preprocess: bad });
    await expect(run(tooFine, program(answer))).rejects.toMatchObject({ code: 'TOO_MANY_VOXELS' });
    await expect(run(tooFine, program(answer), stopAt('preprocess'))).rejects.toBe(reason);
    const checked = programOf({
      postprocess: ['check'],
      resultChecks: [{ minimumMl: 1000, message: 'Too small.' }],
    });
    await expect(run(checked, program(answer))).rejects.toMatchObject({ code: 'NOT_ACCEPTED' });
    await expect(run(checked, program(answer), stopAt('postprocess'))).rejects.toBe(reason);
  });
});

describe('predict(): inputs', () => {
  /** What the program was called with. */
  async function inputsOf(manifest: ReturnType<typeof programOf>, given: Given) {
    let seen: Readonly<Record<string, InputValue>> = {};
    let seenContext: AppContext | undefined;
    const { logs } = await run(
      manifest,
      program((inputs, context) => {
        [seen, seenContext] = [inputs, context];
        context.progress(0.1);
        context.progress(0.2, 'second look');
        context.log('a line');
        return { note: 'done' };
      }),
      given,
    );
    return { inputs: seen, context: seenContext as AppContext, logs };
  }
  const noteOf = (more: object) => programOf({ outputs: { note: { type: 'PlainText' } }, ...more });

  it('gives a program volumes, transforms and parameters by name', async () => {
    const manifest = noteOf({
      inputs: {
        ...app.inputs,
        warp: { type: 'transform' },
        level: { type: 'slider', minimum: 0, maximum: 9 },
        fast: { type: 'checkbox', default: true },
        seeds: { type: 'fiducials' },
      },
    });
    const matrix: Affine = [0.9, 0.2, 0, 5, -0.1, 1.1, 0, -7, 0, 0, 1.5, 3, 0, 0, 0, 1];
    const mat = await collectBytes(writeTransform({ kind: 'linear', matrix }, 'mat', webPlatform));
    const { inputs, context, logs } = await inputsOf(manifest, {
      files: { ...(await scanFiles()), warp: [sourceFromBytes('warp.mat', mat)] },
      parameters: { level: '3.5', seeds: '1,2,3;4,5,-6' },
    });
    const parameters = {
      level: 3.5,
      fast: true,
      seeds: [
        [1, 2, 3],
        [4, 5, -6],
      ],
    };
    expect(Object.keys(inputs).sort()).toEqual(['fast', 'level', 'seeds', 'volume', 'warp']);
    expect(inputs).toMatchObject(parameters);
    expect(context.parameters).toEqual(parameters);
    expect(context.signal.aborted).toBe(false);
    expect(inputs.volume).toMatchObject({ size, voxels: scan.voxels, components: 1 });
    const warp = inputs.warp as { kind: string; matrix: Affine };
    expect(warp.kind).toBe('linear');
    warp.matrix.forEach((v, i) => void expect(v).toBeCloseTo(matrix[i], 9));
    expect(logs).toEqual(['second look', 'a line']);
  });

  it('names the file inputs that are missing', async () => {
    const manifest = noteOf({
      inputs: {
        volume: { type: 'volume' },
        prior: { type: 'volume', optional: true },
        warp: { type: 'transform' },
        other: { type: 'transform', optional: true },
      },
    });
    await expect(run(manifest, levels, { files: { volume: [] } })).rejects.toMatchObject({
      code: 'INPUTS_MISSING',
      message: expect.stringMatching(/volume and warp\. Send them /),
      detail: { missing: ['volume', 'warp'] },
    });
    await expect(run(manifest, levels, { files: await scanFiles() })).rejects.toMatchObject({
      message: expect.stringMatching(/warp\. Send it /),
      detail: { missing: ['warp'] },
    });
  });

  it('does without optional files', async () => {
    const inputs = {
      volume: { type: 'volume', optional: true },
      warp: { type: 'transform', optional: true },
    };
    expect((await inputsOf(noteOf({ inputs }), { files: {} })).inputs).toEqual({});
  });

  it.each(['level', 'mask', 'toString'])('refuses a file as %s', async (name) => {
    const manifest = noteOf({ inputs: { ...app.inputs, level: { type: 'checkbox' } } });
    const files = { ...(await scanFiles()), [name]: [await fileOf(scan)] };
    await expect(run(manifest, levels, { files })).rejects.toMatchObject({ code: 'BAD_INPUT', field: name });
  });

  it('refuses parameters that the manifest does not know', async () => {
    await expect(run(programOf(), levels, { parameters: { mode: 1 } })).rejects.toMatchObject({
      code: 'BAD_INPUT',
    });
  });

  it('names the input whose file is bad, or larger than allowed', async () => {
    const inputs = { ...app.inputs, prior: { type: 'volume' }, warp: { type: 'transform' } };
    const bad = [sourceFromBytes('a.bin', new Uint8Array(400))];
    const good = [await fileOf(scan)];
    const read = (files: Record<string, SourceFile[]>, limits?: ReadLimits) =>
      run(noteOf({ inputs }), levels, { files, limits });
    await expect(read({ volume: good, prior: bad, warp: bad })).rejects.toMatchObject({
      code: 'UNKNOWN_FORMAT',
      field: 'prior',
    });
    await expect(read({ volume: good, prior: good, warp: bad })).rejects.toMatchObject({ field: 'warp' });
    await expect(read({ volume: good, prior: good, warp: bad }, { maxVoxels: 59 })).rejects.toMatchObject({
      code: 'TOO_MANY_VOXELS',
      field: 'volume',
    });
  });

  it('reads the chosen frame, or all as components', async () => {
    const bytes = await collectBytes(writeVolume(patterned([5, 4, 6]), 'nii', webPlatform));
    // NIfTI-1: dim[0] at 40, so 6 slices become 2 frames of 3.
    const view = new DataView(bytes.buffer);
    for (const [at, value] of [[40, 4], [46, 3], [48, 2]]) view.setInt16(at, value, true); // biome-ignore format: pairs
    const files = { volume: [sourceFromBytes('series.nii', bytes)] };
    await expect(inputsOf(noteOf({}), { files })).rejects.toMatchObject({
      code: 'FRAME_NEEDED',
      field: 'volume',
    });
    const both = patterned([5, 4, 6]).voxels as Int16Array;
    const second = (await inputsOf(noteOf({}), { files, frame: 1 })).inputs.volume;
    expect(second).toMatchObject({ size, components: 1, voxels: both.slice(60) });
    const all = noteOf({ inputs: { volume: { type: 'volume', frames: 'all' } } });
    const volume = (await inputsOf(all, { files })).inputs.volume;
    expect(volume).toMatchObject({ size, components: 2, voxels: both });
  });

  it('gives modules numbers for 64-bit integers, and commands the original voxels', async () => {
    const long = { ...scan, voxels: BigInt64Array.from(scan.voxels as Int16Array, BigInt) };
    const files = { volume: [await fileOf(long)] };
    const numbers = (await inputsOf(noteOf({}), { files })).inputs.volume as Volume;
    expect(numbers.voxels).toEqual(Float64Array.from(scan.voxels as Int16Array));
    const command = noteOf({ model: { runtime: 'command', command: ['segment'] } });
    const bigs = (await inputsOf(command, { files })).inputs.volume as Volume;
    expect(bigs.voxels).toEqual(long.voxels);
  });

  it('refuses a volume that the rules of its input exclude', async () => {
    const manifest = noteOf({
      inputs: { ...app.inputs, prior: { type: 'volume' } },
      acceptance: [{ input: 'prior', size: { minimum: 4 } }],
    });
    const [small, large] = [[await fileOf(scan)], [await fileOf(patterned([5, 4, 4]))]];
    await expect(run(manifest, levels, { files: { volume: large, prior: small } })).rejects.toMatchObject({
      code: 'NOT_ACCEPTED',
      field: 'prior',
    });
    await inputsOf(manifest, { files: { volume: small, prior: large } });
  });

  it('preprocesses every volume by the steps whose condition holds', async () => {
    const manifest = noteOf({
      inputs: { ...app.inputs, prior: { type: 'volume' }, fast: { type: 'checkbox' } },
      preprocess: [
        { centerSpatialCrop: { roiSize: [3, 0, 0] }, when: { fast: true } },
        { cropForeground: { above: 99 }, when: { fast: false } },
      ],
    });
    const files = { volume: [await fileOf(scan)], prior: [await fileOf(patterned([7, 2, 2]))] };
    const fast = await inputsOf(manifest, { files, parameters: { fast: true } });
    expect(fast.inputs).toMatchObject({ volume: { size: [3, 4, 3] }, prior: { size: [3, 2, 2] } });
    // Voxels 1 to 3 along x are left, at their places.
    const volume = fast.inputs.volume as Volume;
    forEachVoxel(volume.size, ([x, y, z]) => {
      expect(voxelAt(volume, [x, y, z])).toBe(voxelAt(scan, [x + 1, y, z]));
      const [place, expected] = [applyAffine(volume.affine, [x, y, z]), applyAffine(oblique, [x + 1, y, z])];
      for (const k of [0, 1, 2]) expect(place[k]).toBeCloseTo(expected[k], 4);
    });
    const slow = await inputsOf(manifest, { files, parameters: { fast: false } });
    expect(slow.inputs).toMatchObject({ volume: { size }, prior: { size: [7, 2, 2] } });
    expect(slow.logs.filter((line) => line.startsWith('cropForeground'))).toHaveLength(2);
  });

  it('loads the first model whose condition holds', async () => {
    const modes = { mode: { type: 'radiobutton', options: ['a', 'b', 'c'] } };
    const manifest = programOf({
      inputs: { ...app.inputs, ...modes },
      model: [
        { runtime: 'module', file: 'a.js', when: { mode: 'a' } },
        { runtime: 'module', file: 'b.js', when: { mode: 'b' } },
        { runtime: 'module', file: 'b2.js', when: { mode: 'b' } },
      ],
    });
    const loaded: ModelSpec[] = [];
    const load = async (model: ModelSpec) => {
      loaded.push(model);
      return program(answer);
    };
    await run(manifest, levels, { parameters: { mode: 'b' }, load });
    expect(loaded).toEqual([manifest.model[1]]);
    await expect(run(manifest, levels, { parameters: { mode: 'c' }, load })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringContaining('other values'),
    });
  });
});
