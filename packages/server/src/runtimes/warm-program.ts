import { type AppContext, TomaatError } from '@tomaat/core';
import {
  type CommandSpec,
  drainMs,
  limitLog,
  objectOf,
  type ProcessGroups,
  type ProgramProcess,
  programError,
  progressOf,
  refusal,
  startProgram,
} from './program-process.ts';

/*
 * A program that is kept between predictions (`serve: true`): importing a framework and loading weights takes longer than most
 * predictions. It is started by the first one, with TOMAAT_SERVE=1. A prediction is one line on its stdin,
 *   {"id":1,"input":"/…/input","output":"/…/output","params":"/…/params.json"}
 * and exactly one answer on its stdout: {"id":1,"ok":true}, or {"id":1,"error":"…"}, with "fault":"input" if the caller is to
 * change the input. Before the answer, {"fraction":0.4,"stage":"…"} is progress. {"ready":true} may come first; every other line
 * goes to the log. A program that answers in any other way is out of step with its requests: it is killed, and the next prediction
 * starts a new one.
 */

/** What a program works with: absolute paths. */
export interface ProgramPaths {
  /** Folder with the files of the inputs. */
  readonly input: string;
  /** Empty folder for the files of the outputs. */
  readonly output: string;
  /** File with the parameters, as JSON. */
  readonly params: string;
}

export interface WarmProgram {
  /**
   * One prediction by the kept process; it is started if it does not run. One at a time.
   * @throws {TomaatError} BAD_INPUT, APP_FAILED or OUT_OF_MEMORY; the reason of the signal when that aborts
   */
  run(paths: ProgramPaths, context: Pick<AppContext, 'signal' | 'progress' | 'log'>): Promise<void>;
}

type Answer = { readonly ok: true } | { readonly error: TomaatError };

interface Request {
  readonly id: number;
  answer(answer: Answer): void;
  progress(fraction: number, stage?: string): void;
  log(line: string): void;
  /** Whether the program has written a line to stdout since. */
  isHeard: boolean;
}

interface Live {
  readonly process: ProgramProcess;
  request?: Request;
  answers: number;
  /** The last line on stderr during the request. */
  lastError: string;
  /** Why it is being killed. */
  fault?: string;
}

/** Lines on stdout are cut after so many characters; an answer is shorter. */
const maxAnswerLength = 1 << 16;
const maxErrorLength = 500;
/** A process that ends this early, without a word, was ending when it got the request. */
const endingMs = 1000;

export function createWarmProgram(
  spec: CommandSpec,
  cwd: string,
  { closing, onSpawn, onExit }: ProcessGroups & { closing: AbortSignal },
): WarmProgram {
  let live: Live | undefined;
  let lastId = 0;
  /** Why the last process was killed; for the log of the next prediction. */
  let lastFault: string | undefined;
  closing.addEventListener('abort', () => live?.process.stop(), { once: true });

  function start(): Live {
    const started: Live = {
      answers: 0,
      lastError: '',
      process: startProgram(spec, {
        cwd,
        args: [],
        // Python would keep its answers in a buffer, which a pipe makes large.
        environment: { PYTHONUNBUFFERED: '1', ...spec.environment, TOMAAT_SERVE: '1' },
        hasStdin: true,
        maxLineLength: maxAnswerLength,
        onSpawn,
        onExit,
        onLine: (line) => takeLine(started, line),
        onErrorLine: (line) => {
          if (line.trim() !== '') started.lastError = line.trim().slice(0, maxErrorLength);
          started.request?.log(line);
        },
        // Usually its end, which follows at once.
        onClosed: () => setTimeout(() => fail(started, 'closed its stdin or stdout'), drainMs).unref(),
      }),
    };
    live = started;
    void started.process.ended.then(() => {
      if (live === started) live = undefined;
      lastFault = started.fault;
    });
    return started;
  }

  async function ask(program: Live, paths: ProgramPaths, context: Parameters<WarmProgram['run']>[1]) {
    const { signal } = context;
    const log = limitLog(context.log);
    let answer = (_: Answer) => {};
    const answered = new Promise<Answer>((resolve) => {
      answer = resolve;
    });
    const request: Request = { id: ++lastId, answer, progress: context.progress, log, isHeard: false };
    program.request = request;
    if (program.answers > 0) program.lastError = '';
    const { stop, stdin, ended } = program.process;
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      stdin?.write(`${JSON.stringify({ id: request.id, ...paths })}\n`);
      const end = await Promise.race([answered, ended]);
      if (signal.aborted) {
        await ended;
        throw signal.reason;
      }
      return { request, end };
    } finally {
      program.request = undefined;
      signal.removeEventListener('abort', stop);
    }
  }

  return {
    async run(paths, context) {
      context.signal.throwIfAborted();
      if (live?.fault) await live.process.ended;
      if (lastFault) context.log(`The program is started again: it ${lastFault}.`);
      lastFault = undefined;
      for (;;) {
        const program = live ?? start();
        const sentMs = performance.now();
        const { request, end } = await ask(program, paths, context);
        if ('ok' in end) return;
        if ('error' in end) throw end.error;
        const wasEnding =
          program.answers > 0 &&
          !program.fault &&
          !request.isHeard &&
          end.code !== 2 &&
          performance.now() - sentMs < endingMs;
        if (wasEnding) continue;
        if (program.fault) throw failure(`The app’s program ${program.fault}.`);
        if (end.code === 0)
          throw failure(
            'The app’s program ended without an answer. With serve: true it must answer each line on its stdin and go on until its stdin ends.',
          );
        throw programError(end, program.lastError);
      }
    },
  };
}

/** Ends a program that is out of step. */
function fail(program: Live, fault: string): void {
  program.fault ??= fault;
  program.process.kill();
}

function takeLine(program: Live, line: string): void {
  if (program.fault) return;
  const { request } = program;
  if (request) request.isHeard = true;
  const object = objectOf(line);
  if (object === undefined) {
    const isAnswer = line.startsWith('{') && (line.includes('"id"') || line.length >= maxAnswerLength);
    if (isAnswer) fail(program, `wrote an answer that is not one line of JSON: ${line.slice(0, 80)}`);
    else request?.log(line);
  } else if ('id' in object) takeAnswer(program, object);
  else if (object.ready !== true) {
    const report = progressOf(object);
    if (report) request?.progress(report.fraction, report.stage);
    else request?.log(line);
  }
}

function takeAnswer(program: Live, object: Readonly<Record<string, unknown>>): void {
  const { request } = program;
  const answer = answerOf(object);
  const of = `answered request ${JSON.stringify(object.id).slice(0, 40)}`;
  if (!request) fail(program, `${of} while no request was running`);
  else if (object.id !== request.id)
    fail(program, `${of} instead of ${request.id}. It must answer each request once, with the request’s id`);
  else if (!answer) fail(program, `${of} with neither "ok": true nor an "error" that is a text`);
  else {
    program.request = undefined;
    program.answers++;
    request.answer(answer);
  }
}

function answerOf({ ok, error, fault }: Readonly<Record<string, unknown>>): Answer | undefined {
  if (ok === true && (error === undefined || error === null)) return { ok };
  if (typeof error !== 'string') return undefined;
  const text = error.trim().slice(0, maxErrorLength);
  if (fault === 'input') return { error: refusal(text) };
  return { error: failure(`The app’s program failed${text ? `: ${text}` : ' without giving a reason.'}`) };
}

const failure = (message: string) => new TomaatError('APP_FAILED', message);
