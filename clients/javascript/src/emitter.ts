/** A set of listeners. One that throws does not keep the others from being called. */
export class Listeners<T> {
  readonly #listeners = new Set<(value: T) => void>();

  add(listener: (value: T) => void): () => void {
    // A function of its own for each `on`: the same handler may be added twice and removed once.
    const entry = (value: T) => listener(value);
    this.#listeners.add(entry);
    return () => void this.#listeners.delete(entry);
  }

  emit(value: T): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(value);
      } catch (error) {
        console.error('selfhost-transport: a listener threw', error);
      }
    }
  }

  clear(): void {
    this.#listeners.clear();
  }
}
