import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Absence, AGAIN_MS, PATIENCE_MS } from "../src/lib/absence.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("an absence is noticed after a while, and again as long as it lasts", () => {
  const lasts = vi.fn();
  const absence = new Absence(lasts);
  absence.begin();
  vi.advanceTimersByTime(PATIENCE_MS - 1);
  expect(lasts).toHaveBeenCalledTimes(0);
  vi.advanceTimersByTime(1);
  expect(lasts).toHaveBeenCalledTimes(1);
  vi.advanceTimersByTime(2 * AGAIN_MS);
  expect(lasts).toHaveBeenCalledTimes(3);
  absence.end();
  vi.advanceTimersByTime(10 * AGAIN_MS);
  expect(lasts).toHaveBeenCalledTimes(3);
});

test("a short absence is nobody's business, and word of one that goes on does not prolong it", () => {
  const lasts = vi.fn();
  const absence = new Absence(lasts);
  absence.begin();
  vi.advanceTimersByTime(PATIENCE_MS - 1);
  absence.end();
  vi.advanceTimersByTime(PATIENCE_MS);
  expect(lasts).toHaveBeenCalledTimes(0);
  absence.begin();
  vi.advanceTimersByTime(PATIENCE_MS / 2);
  absence.begin();
  vi.advanceTimersByTime(PATIENCE_MS / 2);
  expect(lasts).toHaveBeenCalledTimes(1);
});
