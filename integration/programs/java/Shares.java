import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntBinaryOperator;

/** Works in phases, each a method of its own, and says what CPU time each had. Java 8, so that every JVM runs it. */
public class Shares {
    interface Shape { double area(int i); }
    static final class Square implements Shape { public double area(int i) { return i * 1.5; } }
    static final class Circle implements Shape { public double area(int i) { return i * 3.14; } }
    static final class Oval implements Shape { public double area(int i) { return i * 2.71 + 1; } }
    static final class Star implements Shape { public double area(int i) { return (i ^ 5) * 0.5; } }

    static final Shape[] SHAPES = { new Square(), new Circle(), new Oval(), new Star() };
    static final int DEPTH = 100;
    static volatile double sum;
    static volatile long kept;

    static void recursion() { kept += down(DEPTH, (int) kept); }
    static int down(int depth, int salt) {
        if (depth == 0) {
            return bottom(salt);
        }
        return down(depth - 1, salt + 1) + 1;
    }
    static int bottom(int salt) {
        int x = salt;
        for (int i = 0; i < 4000; i++) {
            x = x * 31 + (x >>> 7) + i;
        }
        return x & 1;
    }

    static void megamorphic() {
        double all = 0;
        for (int i = 0; i < 4000; i++) {
            all += SHAPES[i & 3].area(i);
        }
        sum = all;
    }

    static void lambdas() {
        long all = 0;
        IntBinaryOperator[] operators = { (a, b) -> a * 17 + b, (a, b) -> a ^ b * 3, (a, b) -> a - b };
        for (int i = 0; i < 4000; i++) {
            all += operators[i % 3].applyAsInt(i, (int) all);
        }
        kept += all;
    }

    static int inner3(int x) { return x * 31 + (x >>> 5); }
    static int inner2(int x) { return inner3(x) ^ inner3(x + 1); }
    static int inner1(int x) { return inner2(x) + inner2(x + 7); }
    static void inlined() {
        int x = (int) kept;
        for (int i = 0; i < 4000; i++) {
            x += inner1(x + i);
        }
        kept += x;
    }

    static void collections() {
        Map<Integer, String> map = new HashMap<>();
        for (int i = 0; i < 300; i++) {
            map.put(i * 7, "v" + i);
        }
        List<Integer> keys = new ArrayList<>(map.keySet());
        Collections.sort(keys, (a, b) -> Integer.compare(b % 97, a % 97));
        for (Integer key : keys) {
            kept += map.get(key).length();
        }
    }

    static final ThreadMXBean THREADS = ManagementFactory.getThreadMXBean();

    static long cpu() { return THREADS.getCurrentThreadCpuTime(); }

    static void run(Runnable phase) {
        for (int i = 0; i < 50; i++) {
            phase.run();
        }
    }

    public static void main(String[] arguments) throws Exception {
        long budget = Long.parseLong(arguments[arguments.length - 1]) * 1_000_000L;
        String[] names = { "recursion", "megamorphic", "lambdas", "inlined", "collections" };
        Runnable[] phases =
            { Shares::recursion, Shares::megamorphic, Shares::lambdas, Shares::inlined, Shares::collections };
        long[] spent = new long[phases.length];
        Thread worker = new Thread(() -> {
            long start = cpu();
            long from = start;
            for (int turn = 0; from - start < budget; turn = (turn + 1) % phases.length) {
                long until = from + 4_000_000L * (turn + 1);
                long now;
                do {
                    run(phases[turn]);
                    now = cpu();
                } while (now < until);
                spent[turn] += now - from;
                from = now;
            }
        }, "shares");
        worker.start();
        worker.join();
        long all = 0;
        StringBuilder shares = new StringBuilder();
        StringBuilder stacks = new StringBuilder();
        for (int i = 0; i < names.length; i++) {
            all += spent[i];
            shares.append(i > 0 ? "," : "").append("\"Shares.").append(names[i]).append("\":").append(spent[i]);
            stacks.append(i > 0 ? "," : "").append("\"Shares.").append(names[i]).append("\":[\"Shares.").append(names[i])
                .append("\",\"...\",\"Shares.run\",\"...\",\"java.lang.Thread.run\",\"...\"]");
        }
        String pid = ManagementFactory.getRuntimeMXBean().getName().split("@")[0];
        System.out.println("{\"program\":\"java/shares\",\"pid\":" + pid + ",\"cpu_ns\":" + all + ",\"shares\":{" + shares
            + "},\"stacks\":{" + stacks + "}}");
    }
}
