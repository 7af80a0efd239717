/**
 * To be loaded into a program before it starts (`node --import`), with a pipe as its standard input: ends the program
 * when the pipe is closed, which is when the test that started it is gone, however that came to its end.
 */
process.stdin.once('end', () => process.exit(1)).resume();
if ('unref' in process.stdin) process.stdin.unref();

export {};
