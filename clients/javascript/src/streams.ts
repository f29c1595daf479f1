import type { ErrorInfo } from 'ably';

/** The chunks of turns as streams. They are buffered without bound: a stream may be read late, or not at all. */
export class TurnStreams<TEvent> {
  readonly #open = new Map<string, Set<ReadableStreamDefaultController<TEvent>>>();

  /** A stream of the chunks of `turnId` from now on. Open it before the turn can begin. */
  open(turnId: string): ReadableStream<TEvent> {
    let controller!: ReadableStreamDefaultController<TEvent>;
    const controllers = this.#open.get(turnId) ?? new Set();
    const stream = new ReadableStream<TEvent>({
      start: (made) => void (controller = made),
      cancel: () => void controllers.delete(controller),
    });
    this.#open.set(turnId, controllers.add(controller));
    return stream;
  }

  push(turnId: string, events: readonly TEvent[]): void {
    for (const controller of this.#open.get(turnId) ?? []) for (const event of events) controller.enqueue(event);
  }

  close(turnId: string, error?: ErrorInfo): void {
    const controllers = this.#open.get(turnId);
    this.#open.delete(turnId);
    for (const controller of controllers ?? []) error ? controller.error(error) : controller.close();
  }

  closeAll(error?: ErrorInfo): void {
    for (const turnId of [...this.#open.keys()]) this.close(turnId, error);
  }
}
