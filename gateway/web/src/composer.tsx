/** Where the user writes: Send works at any time, also while answers stream. */
import { type FormEvent, type KeyboardEvent, type ReactNode, useLayoutEffect, useRef, useState } from 'react';

interface Props {
  initial: string;
  editing: boolean;
  /** This client has turns that can be stopped. */
  busy: boolean;
  stopping: boolean;
  /** Resolves to whether the text was sent; only then is the input emptied. */
  onSubmit: (text: string, interrupt: boolean) => Promise<boolean>;
  onStop: () => void;
  onCancelEdit: () => void;
}

const INTERRUPT = 'interruptFirst';

/** Grow with the text up to the height the style sheet allows. */
function fit(area: HTMLTextAreaElement): void {
  area.style.height = 'auto';
  area.style.height = `${area.scrollHeight}px`;
}

export function Composer({ initial, editing, busy, stopping, onSubmit, onStop, onCancelEdit }: Props): ReactNode {
  const [text, setText] = useState(initial);
  const [interrupt, setInterrupt] = useState(() => localStorage.getItem(INTERRUPT) === '1');
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    if (area.current) fit(area.current);
  }, [text]);

  const send = async (): Promise<void> => {
    const written = text;
    if (!written.trim()) return;
    setText('');
    if (!(await onSubmit(written.trim(), interrupt))) setText((now) => now || written);
    area.current?.focus();
  };
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    void send();
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    void send();
  };
  const choose = (on: boolean): void => {
    setInterrupt(on);
    localStorage.setItem(INTERRUPT, on ? '1' : '0');
  };
  return (
    <form className="composer" onSubmit={submit}>
      {editing && (
        <div className="editing">
          <span>Editing an earlier message: the conversation continues on a new branch.</span>
          <button type="button" className="quiet" onClick={onCancelEdit}>
            Keep the old one
          </button>
        </div>
      )}
      <textarea
        ref={area}
        rows={1}
        autoFocus
        value={text}
        placeholder={busy ? 'Write on; answers keep streaming' : 'Write a message'}
        aria-label="Message"
        onChange={(event) => setText(event.target.value)}
        onKeyDown={onKey}
      />
      <div className="actions">
        <label className="switch" title="Stop your running answers before sending the next message">
          <input type="checkbox" checked={interrupt} onChange={(event) => choose(event.target.checked)} />
          <span>Interrupt first</span>
        </label>
        <span className="grow" />
        {busy && (
          <button type="button" className="stop" data-testid="stop" disabled={stopping} onClick={onStop} title="Esc">
            {stopping ? 'Stopping…' : 'Stop'}
          </button>
        )}
        <button type="submit" className="primary" data-testid="send" disabled={!text.trim()}>
          {busy && interrupt ? 'Interrupt and send' : 'Send'}
        </button>
      </div>
    </form>
  );
}
